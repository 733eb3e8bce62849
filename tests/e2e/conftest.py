"""One server with the embedded model for all tests that leave it as it was."""

from __future__ import annotations

import pytest

from tests.e2e.program import Program


@pytest.fixture(scope="session")
def server(transformers_server: Program) -> Program:
    """Ready, with the embedded GPTQ checkpoint."""
    return transformers_server
