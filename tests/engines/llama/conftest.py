"""A real llama-server: `LLAMA_SERVER_PATH`, else the one on PATH."""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def llama_server_path() -> str:
    """The program; without one, the test is skipped."""
    path = os.environ.get("LLAMA_SERVER_PATH") or shutil.which("llama-server")
    if path is None:
        pytest.skip("no llama-server: set LLAMA_SERVER_PATH, or put one on PATH")
    return path
