"""Ways to send many cases, and what went wrong in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.corpus.bench import Bench
from tests.corpus.cases import Case
from tests.corpus.checks import Seen, verify

AT_ONCE = 8


def tried(bench: Bench, case: Case) -> str:
    """One line about what was wrong with the answer; empty when nothing was."""
    try:
        request, answer = bench.send(case)
        verify(Seen(case, request, answer, bench))
    except Exception as error:
        return f"{case.name}: {type(error).__name__}: {error}".replace("\n", " ")[:600]
    return ""


def one_by_one(bench: Bench, cases: Iterable[Case]) -> list[str]:
    """After each case the server is as it was before."""
    return [line for case in cases for line in (tried(bench, case), _harm(bench, [case])) if line]


def eight_at_a_time(bench: Bench, cases: Sequence[Case]) -> list[str]:
    """After each eight the servers are as they were before."""
    wrong = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for at in range(0, len(cases), AT_ONCE):
            some = cases[at : at + AT_ONCE]
            wrong += pool.map(lambda case: tried(bench, case), some)
            wrong.append(_harm(bench, some))
    return [line for line in wrong if line]


def send_all(bench: Bench, cases: Sequence[Case]) -> None:
    """Every case once, whatever comes of it."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda case: tried(bench, case), cases))


def _harm(bench: Bench, cases: Sequence[Case]) -> str:
    try:
        for server in {id(bench.server(case)): bench.server(case) for case in cases}.values():
            server.assert_unharmed()
    except Exception as error:
        names = ", ".join(case.name for case in cases)
        return f"after {names}: {type(error).__name__}: {error}".replace("\n", " ")[:600]
    return ""
