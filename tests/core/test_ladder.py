"""The rungs: their lines, and that neither a plan nor a wobble stands on one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import budget, ladder
from sidecar.budget import Demand
from sidecar.errors import ConfigError
from sidecar.ladder import LINES, SLACK, Rung, rung
from watchdog import rungs

BUDGET = 10000.0
READINGS = st.floats(0, 2 * BUDGET, allow_nan=False)


@pytest.mark.parametrize(
    ("reading", "before", "now"),
    [
        (0, Rung.STEADY, Rung.STEADY),
        (9600, Rung.STEADY, Rung.STEADY),
        (9600.1, Rung.STEADY, Rung.WARN),
        (9800, Rung.WARN, Rung.WARN),
        (9801, Rung.STEADY, Rung.STOP_ADMITTING),
        (10000, Rung.STOP_ADMITTING, Rung.STOP_ADMITTING),
        (10001, Rung.STEADY, Rung.OVER),
        (9950, Rung.OVER, Rung.OVER),
        (9900, Rung.OVER, Rung.STOP_ADMITTING),
        (9750, Rung.STOP_ADMITTING, Rung.STOP_ADMITTING),
        (9700, Rung.STOP_ADMITTING, Rung.WARN),
        (9550, Rung.WARN, Rung.WARN),
        (9500, Rung.WARN, Rung.STEADY),
        (9500, Rung.OVER, Rung.STEADY),
    ],
)
def test_a_rung_is_climbed_at_its_line_and_left_below_it(reading: float, before: Rung, now: Rung) -> None:
    assert rung(reading, BUDGET, before) is now
    assert rungs.rung(reading, BUDGET, rungs.Rung(before)) == now


@given(
    weights=st.floats(0, 20000),
    workspace=st.floats(0, 2000),
    page_mib=st.floats(0.01, 64),
    pages=st.integers(1, 100_000),
    budget_mib=st.floats(64, 100_000),
    before=st.sampled_from(Rung),
)
def test_a_plan_stands_below_the_first_rung(
    weights: float, workspace: float, page_mib: float, pages: int, budget_mib: float, before: Rung
) -> None:
    demand = Demand(weights, workspace, 400.0, page_mib, 16, 16, 1, pages)
    try:
        plan = budget.plan(demand, budget_mib)
    except ConfigError:
        return
    assert rung(plan.total_mib, budget_mib, before) is Rung.STEADY


@given(share=st.floats(0, budget.FILL), budget_mib=st.floats(1, 1e6), before=st.sampled_from(Rung))
def test_so_does_every_reading_that_a_plan_allows(share: float, budget_mib: float, before: Rung) -> None:
    assert rung(share * budget_mib, budget_mib, before) is Rung.STEADY


@given(READINGS, READINGS, st.sampled_from(Rung))
def test_more_memory_is_never_a_lower_rung(one: float, other: float, before: Rung) -> None:
    low, high = sorted((one, other))
    assert rung(low, BUDGET, before) <= rung(high, BUDGET, before)


@given(st.lists(st.floats(-0.99 * SLACK / 2, 0.99 * SLACK / 2), max_size=40), st.sampled_from([*LINES]))
def test_a_reading_that_wobbles_about_a_line_moves_once_at_most(wobbles: list[float], step: Rung) -> None:
    stood, moves = rung(BUDGET * LINES[step] * 0.999, BUDGET), 0
    for wobble in wobbles:
        now = rung(BUDGET * (LINES[step] + wobble), BUDGET, stood)
        moves += now is not stood
        stood = now
    assert moves <= 1


def test_the_watchdog_has_the_same_lines() -> None:
    assert {int(step): line for step, line in rungs.LINES.items()} == {int(s): v for s, v in LINES.items()}
    assert [step.name for step in rungs.Rung] == [step.name for step in Rung]
    assert rungs.SLACK == ladder.SLACK
