"""One server with the embedded model for all tests that leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.e2e.program import Program, program, until


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Ready, with the embedded GPTQ checkpoint."""
    with program(tmp_path_factory.mktemp("server")) as running:
        until(running.ready, "ready")
        until(lambda: "curl -s" in running.printed(), "the ready line")
        yield running


@pytest.fixture(scope="session")
def client(server: Program) -> Iterator[openai.OpenAI]:
    """The official client, without its retries."""
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as made:
        yield made
