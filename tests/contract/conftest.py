"""Every test of this folder runs against both engines, behind the real API.

The tests in which a server dies or is stopped start their own; all others share one for each engine.
"""

from __future__ import annotations

import pytest

from tests.contract.asking import Door
from tests.e2e.program import Program

LLAMA = pytest.param("embedded-gguf", marks=pytest.mark.llama)


@pytest.fixture(scope="session", params=["embedded", LLAMA])
def profile(request: pytest.FixtureRequest) -> str:
    """The embedded model behind the transformers engine, then behind llama-server."""
    return str(request.param)


@pytest.fixture(scope="session")
def server(profile: str, request: pytest.FixtureRequest) -> Program:
    """Ready, and left as it was."""
    name = "llama_server" if profile == "embedded-gguf" else "transformers_server"
    running: Program = request.getfixturevalue(name)
    return running


@pytest.fixture(scope="session")
def door(server: Program) -> Door:
    """Its OpenAI routes."""
    return Door(server)


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streamed(request: pytest.FixtureRequest) -> bool:
    """Both forms of an answer."""
    return bool(request.param)
