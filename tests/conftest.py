"""The suite is repeatable: hypothesis draws the same examples each time.

`HYPOTHESIS_PROFILE=explore make test` looks for new ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.e2e.program import Program, program, serving, until

# No deadline for one example: it would measure how busy the machine is.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tests marked `llama` were asked for: without the program they fail, all at once and in one line."""
    from sidecar.engines.llama_binary import find
    from sidecar.errors import ConfigError

    if not session.config.option.collectonly and any(i.get_closest_marker("llama") for i in session.items):
        try:
            find(os.environ.get("LLAMA_SERVER_PATH") or None, os.environ)
        except ConfigError as error:
            pytest.exit(f"The tests marked `llama` can not run: {error.message}", returncode=1)


@pytest.fixture(scope="session")
def transformers_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The embedded GPTQ checkpoint behind the transformers engine, for all tests that leave it as it was."""
    yield from _ready(tmp_path_factory, "embedded")


@pytest.fixture(scope="session")
def llama_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The same model as GGUF behind llama-server. Only for tests marked `llama`."""
    yield from _ready(tmp_path_factory, "embedded-gguf")


def _ready(folders: pytest.TempPathFactory, profile: str) -> Iterator[Program]:
    with program(folders.mktemp(profile), **serving(profile)) as running:
        until(running.ready, "ready", 100)
        until(lambda: "curl -s" in running.printed(), "the ready line")
        yield running
