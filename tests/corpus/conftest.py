"""The corpus against both engines, each behind the program as a user starts it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.corpus.bench import Bench, bench
from tests.corpus.cases import Case, load
from tests.corpus.runs import send_all, tried

LLAMA = pytest.param("embedded-gguf", marks=pytest.mark.llama)


@pytest.fixture(scope="session")
def cases() -> list[Case]:
    """Those whose answer is no deadline."""
    return [case for case in load() if not case.slow]


@pytest.fixture(scope="session", params=["embedded", LLAMA])
def against(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Servers that have seen every case once, so that what is bought once is paid."""
    profile = str(request.param)
    first = request.getfixturevalue("llama_server" if profile == "embedded-gguf" else "transformers_server")
    everything = load()
    with bench(profile, first, tmp_path_factory.mktemp("guarded"), everything) as found:
        send_all(found, [case for case in everything if not case.slow])
        found.note_memory()
        yield found


@pytest.fixture(scope="session")
def slow(against: Bench) -> Iterator[dict[str, Future[str]]]:
    """Those whose answer is a deadline: sent first, and waited for last."""
    deadlines = [case for case in load() if case.slow]
    with ThreadPoolExecutor(len(deadlines)) as pool:
        yield {case.name: pool.submit(tried, against, case) for case in deadlines}
