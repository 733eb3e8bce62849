"""How long one more would wait, by tables and by rules."""

from __future__ import annotations

from heapq import heappop, heappush

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.pace import Pace, wait_estimate_s


@pytest.mark.parametrize(
    ("running", "waiting", "tokens_per_s", "slots", "seconds"),
    [
        ([100], [], 10, 1, 10),  # the one that runs
        ([300, 100, 200], [], 10, 3, 10),  # the first of them that ends
        ([300, 100, 200], [50], 10, 3, 15),  # who waits takes that place, for 5 s
        ([300, 100, 200], [200], 10, 3, 20),  # or for so long that the second end is sooner
        ([100], [100, 100, 100], 10, 1, 40),
        ([100], [100, 100, 100], 20, 1, 20),
        ([100], [], 10, 4, 10),  # free slots are of no use where pages are missing
        ([], [100, 100], 10, 2, 10),  # nobody runs yet: all are being priced
        ([], [], 10, 0, 1),
        ([5], [], 10, 1, 1),  # never less than a second
        ([10_000], [], 10, 1, 60),  # never more than a minute
        ([0], [], 10, 1, 1),
    ],
)
def test_the_wait(
    running: list[float], waiting: list[float], tokens_per_s: float, slots: int, seconds: float
) -> None:
    assert wait_estimate_s(running, waiting, tokens_per_s, slots) == seconds


TOKENS = st.integers(0, 500)


@given(st.lists(TOKENS, min_size=1, max_size=8), st.lists(TOKENS, max_size=20), st.integers(1, 100))
def test_the_wait_is_that_of_a_queue_that_is_played(
    running: list[int], waiting: list[int], tokens_per_s: int
) -> None:
    ends = sorted(running)
    for tokens in waiting:
        heappush(ends, heappop(ends) + tokens)
    played = min(60.0, max(1.0, ends[0] / tokens_per_s))
    assert wait_estimate_s(running, waiting, tokens_per_s, 1) == played


def test_a_long_queue_costs_no_more_than_the_minute_that_is_said() -> None:
    asked = iter([100.0] * 10_000)
    assert wait_estimate_s([100.0], asked, 10, 1) == 60
    assert len(list(asked)) > 9_900


def test_the_first_answer_replaces_what_was_assumed() -> None:
    pace = Pace()
    assert (pace.tokens_per_s, pace.left(1000, 100)) == (20, 900)
    assert pace.after(50, 2, ended=True) == Pace(50, 2, 0.2, measured=True)


def test_who_brought_nothing_says_nothing() -> None:
    assert Pace().after(0, 5, ended=True) == Pace().after(5, 0, ended=False) == Pace()


@pytest.mark.parametrize(
    ("ended", "max_tokens", "generated", "left"),
    [
        (1.0, 1000, 0, 50),  # all end by themselves, after 50 tokens in the mean
        (0.5, 1000, 0, 100),  # every other one was cut: the end is further away
        (0.0, 1000, 0, 1000),  # none ended: nothing is known but its limit
        (1.0, 1000, 700, 50),  # a long one may still end at any token
        (1.0, 1000, 990, 10),
        (1.0, 20, 0, 20),
        (1.0, 20, 25, 0),
    ],
)
def test_what_is_left_of_an_answer(ended: float, max_tokens: int, generated: int, left: float) -> None:
    assert Pace(50, 2, ended, measured=True).left(max_tokens, generated) == left


def test_answers_that_were_cut_shorten_nobody_elses() -> None:
    assert Pace().after(8, 0.1, ended=False).left(1000) == 1000


def test_one_short_answer_is_no_rule_and_many_are() -> None:
    """The first one is the self-test at the start, which asks for a capital."""
    pace = Pace().after(8, 0.1, ended=True)
    assert pace.left(1000) == 40
    for _ in range(30):
        pace = pace.after(8, 0.1, ended=True)
    assert pace.left(1000) == pytest.approx(8, rel=0.01)


def test_the_average_follows_and_a_short_answer_counts_for_little() -> None:
    pace = Pace().after(100, 10, ended=True).after(1, 5, ended=True)
    assert 8 < pace.tokens_per_s < 10
    for _ in range(30):
        pace = pace.after(100, 1, ended=False)
    assert pace.tokens_per_s == pytest.approx(100, rel=0.05)
    assert pace.ended < 0.01
