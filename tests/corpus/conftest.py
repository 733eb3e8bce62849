"""The corpus against both engines, each behind the program as a user starts it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.corpus.bench import Bench, bench
from tests.corpus.cases import Case, load
from tests.corpus.runs import send_all, tried
from tests.e2e.program import until

LLAMA = pytest.param("embedded-gguf", marks=pytest.mark.llama)


@pytest.fixture(scope="session")
def cases() -> list[Case]:
    """Those whose answer is no deadline."""
    return [case for case in load() if not case.slow]


@pytest.fixture(scope="session", params=["embedded", LLAMA])
def against(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Servers that have seen every case once, so that what is bought once is paid.

    The cases whose answer is a deadline are on their way from the first moment on.
    """
    profile = str(request.param)
    first = request.getfixturevalue("llama_server" if profile == "embedded-gguf" else "transformers_server")
    everything = load()
    slow = [case for case in everything if case.slow]
    with (
        bench(profile, first, tmp_path_factory.mktemp("guarded"), everything) as found,
        ThreadPoolExecutor(len(slow)) as pool,
    ):
        found.deadlines = [pool.submit(tried, found, case) for case in slow]
        quick = [case for case in everything if not case.slow]
        found.open.assert_unharmed()
        send_all(found, [case for case in quick if not case.setup])
        until(found.guarded.program.announced, "ready", 100)
        found.guarded.assert_unharmed()
        send_all(found, [case for case in quick if case.setup])
        found.note_memory()
        yield found
