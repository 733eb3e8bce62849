"""Whose memory it is: the driver first, a fresh word of the sidecar second, else nobody knows."""

from __future__ import annotations

import pytest

from watchdog.attribution import attributed, fresh_s
from watchdog.observation import Card, Report, Unknown
from watchdog.smi import Process

A, B = "GPU-a", "GPU-b"
OURS, THEIRS = 1000, 5000
PIDS = frozenset({OURS, OURS + 1})
MAX_AGE_S = 120.0


def own(
    processes: tuple[Process, ...] | Unknown = (), report: Report | None = None, cards: int = 1
) -> list[tuple[float | None, str]]:
    """Own memory and its witness, for each card."""
    look = {gpu: Card(12000.0, 24576.0) for gpu in (A, B)[:cards]}
    found = attributed(look, processes, PIDS, report, MAX_AGE_S)
    assert not isinstance(found, Unknown)
    return [(card.own_mib, card.witness) for card in found.values() if isinstance(card, Card)]


def said(own_mib: float | None = 6500.0, age_s: float | None = 1.0) -> Report:
    return Report("b", "ready", own_mib, age_s)


@pytest.mark.parametrize(
    ("processes", "report", "expected"),
    [
        ((Process(OURS, A, 9000.0),), None, (9000.0, "the driver")),
        ((Process(OURS, A, 9000.0), Process(OURS + 1, A, 500.0)), None, (9500.0, "the driver")),
        ((Process(OURS, A, 9000.0), Process(THEIRS, A, 500.0)), None, (9000.0, "the driver")),
        ((Process(OURS, A, 9000.0),), said(1.0), (9000.0, "the driver")),  # the suspect is no witness
        ((), said(), (6500.0, "its own report")),
        ((Process(THEIRS, A, 5500.0),), said(), (6500.0, "its own report")),
        ((Process(OURS, A, None),), said(), (6500.0, "its own report")),
        (Unknown("garbage", ""), said(), (6500.0, "its own report")),
        ((), said(age_s=120.0), (6500.0, "its own report")),
        ((), said(age_s=120.1), (None, "")),
        ((), said(age_s=None), (None, "")),
        ((), said(own_mib=None), (None, "")),
        ((), None, (None, "")),
        ((Process(THEIRS, A, 9000.0),), None, (None, "")),  # perhaps other numbers in the container
    ],
)
def test_the_order_of_witnesses(
    processes: tuple[Process, ...] | Unknown, report: Report | None, expected: tuple[float | None, str]
) -> None:
    assert own(processes, report) == [expected]


def test_a_process_on_one_card_proves_that_the_other_holds_none() -> None:
    assert own((Process(OURS, A, 9000.0), Process(THEIRS, B, 12000.0)), None, cards=2) == [
        (9000.0, "the driver"),
        (0, "the driver"),
    ]


def test_a_report_is_the_sum_over_all_cards() -> None:
    assert own((), said(6500.0), cards=2) == [(6500.0, "its own report")] * 2


def test_the_others_are_named_the_largest_first() -> None:
    listed = (Process(OURS, A, 6500.0), Process(7, A, 1.0), Process(8, A, 5000.0), Process(9, A, None))
    found = attributed({A: Card(12000.0)}, listed, PIDS, None, MAX_AGE_S)
    assert not isinstance(found, Unknown)
    card = found[A]
    assert isinstance(card, Card)
    assert card.rest == ("process 8 holds 5000 MiB, process 7 holds 1 MiB, process 9 holds an unknown amount")


def test_unknown_stays_unknown() -> None:
    unread = Unknown("not_available", "")
    assert attributed(unread, (), PIDS, said(), MAX_AGE_S) == unread
    assert attributed({A: unread}, (), PIDS, said(), MAX_AGE_S) == {A: unread}


@pytest.mark.parametrize(("interval_s", "age_s"), [(60.0, 120.0), (1.0, 15.0), (7.5, 15.0), (10.0, 20.0)])
def test_how_fresh(interval_s: float, age_s: float) -> None:
    assert fresh_s(interval_s) == age_s
