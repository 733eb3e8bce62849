"""No bad request hurts: every case of the corpus, in four ways, over both engines.

`-s` shows how many were right, and the seed of the shuffle.
"""

from __future__ import annotations

import random

import pytest

from tests.corpus.bench import Bench
from tests.corpus.cases import Case, load
from tests.corpus.checks import CHECKS
from tests.corpus.runs import eight_at_a_time, one_by_one

# A start and hundreds of cases; a machine that does other things too takes minutes.
pytestmark = pytest.mark.timeout(400)
SEED = 20261121


def report(name: str, bench: Bench, cases: list[Case], wrong: list[str]) -> None:
    """Nothing was wrong, and nothing was kept."""
    print(f"\n{bench.model}, {name}: {len(cases)} cases, {len(wrong)} wrong")
    assert not wrong, "\n".join([f"{len(wrong)} wrong ({name}):", *wrong])
    bench.assert_memory_is_flat()
    assert bench.tripwire.visits == 0


def test_in_order(against: Bench, cases: list[Case]) -> None:
    report("in order", against, cases, one_by_one(against, cases))


def test_shuffled(against: Bench, cases: list[Case]) -> None:
    mixed = random.Random(SEED).sample(cases, len(cases))
    report(f"shuffled by {SEED}", against, cases, one_by_one(against, mixed))


def test_eight_at_a_time(against: Bench, cases: list[Case]) -> None:
    report("eight at a time", against, cases, eight_at_a_time(against, cases))


def test_streamed(against: Bench, cases: list[Case]) -> None:
    streamed = [case.streamed() for case in cases if case.can_stream]
    report("streamed", against, streamed, one_by_one(against, streamed))


def test_those_that_wait_for_a_deadline(against: Bench) -> None:
    wrong = [line for future in against.deadlines if (line := future.result())]
    report("deadlines", against, [case for case in load() if case.slow], wrong)
    against.open.assert_unharmed()


def test_every_check_that_a_case_names_is_there() -> None:
    assert {check.partition(":")[0] for case in load() for check in case.checks} == set(CHECKS)


def test_the_corpus_is_whole() -> None:
    assert len({case.name for case in load()}) == 234
