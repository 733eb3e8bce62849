"""A real llama-server: `LLAMA_SERVER_PATH`, else the one on PATH."""

from __future__ import annotations

import os

import pytest

from sidecar.engines.llama_binary import find


@pytest.fixture(scope="session")
def llama_server_path() -> str:
    """The program, for tests that are marked `llama`."""
    return find(os.environ.get("LLAMA_SERVER_PATH") or None, os.environ)
