"""What holds for every history, not only for those that somebody thought of."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.watchdog.timeline import HUNG, LOST, Timeline, container, most_within
from watchdog.decision import Alert, Hold, Restart, decide
from watchdog.observation import Card, Observation, Report, Unknown
from watchdog.state import Limits, State

PHASES = ["download", "load", "kernels", "warmup", "ready", "draining", "failed", "unloaded", "?"]
STATES = ["running", "exited", "paused", "restarting", "removing", "dead", "created"]
CAUSES = ["probe_hung", "gpu_lost", "no_gpu", "garbage", "mig"]
TARGETS = ["missing", "ambiguous", "docker_unreachable"]

numbers = st.floats(allow_nan=False, allow_infinity=False, min_value=0, max_value=1e6)
unknowns = st.builds(Unknown, st.sampled_from(CAUSES), st.text(max_size=5))
cards = st.builds(
    Card, numbers, st.none() | numbers, st.none() | numbers, st.sampled_from(["", "x"]), st.just("")
)
looks = unknowns | st.dictionaries(st.sampled_from(["GPU-0", "GPU-1"]), cards | unknowns, max_size=2)
reports = st.builds(
    Report,
    st.sampled_from("ab"),
    st.sampled_from(PHASES),
    running=st.integers(0, 2),
    waiting=st.integers(0, 1),
)
containers = st.builds(
    container, st.integers(1, 3), st.sampled_from(STATES), uptime_s=st.none() | st.floats(0, 1e5)
)
targets = containers | st.builds(Unknown, st.sampled_from(TARGETS), st.just("x"))
steps = st.tuples(st.floats(0.1, 400.0), targets, looks, st.none() | reports)
limits = st.builds(
    Limits,
    interval_s=st.sampled_from([1.0, 60.0]),
    strikes=st.integers(1, 4),
    scope=st.sampled_from(["own", "card"]),
)


@given(limits, st.lists(steps, max_size=40))
def test_it_answers_whatever_it_sees(limits: Limits, history: list[tuple]) -> None:
    state, now_s = State(), 0.0
    for wait_s, target, look, report in history:
        now_s += wait_s
        state, decision = decide(limits, state, Observation(now_s, target, look, report))
        assert isinstance(decision, Hold | Restart | Alert)
        if isinstance(decision, Restart) and decision.cause == "over_limit":
            seen = Observation(now_s, target, look, report)
            assert seen.running is not None
            assert limits.is_over(seen.cards[decision.gpu])
            assert len(decision.readings) == limits.strikes
            assert decision.readings[-1].at_s == now_s


readings = st.sampled_from([None, LOST, 9000.0, 10752.0, 10753.0, 12000.0])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(readings, st.integers(1, 90)), min_size=1, max_size=80))
def test_no_history_of_readings_makes_a_storm(blocks: list[tuple[float | Unknown | None, int]]) -> None:
    timeline, times = Timeline(), []
    for used, ticks in blocks:
        for _ in range(ticks):
            before, at_s = len(timeline.restarts), timeline.now_s
            look = {"GPU-0": Card(used)} if isinstance(used, float) else used or HUNG
            timeline.see(look, report=Report(f"b{timeline.boot}", "ready"))
            times += [at_s] if len(timeline.restarts) > before else []
    assert most_within(times, 1800.0) <= 3


@settings(max_examples=200)
@given(st.text(alphabet="OU?", max_size=60))
def test_only_after_three_over_with_no_under_between(pattern: str) -> None:
    """The rule said in another way: the last three known readings were over, within five intervals."""
    timeline = Timeline()
    for tick, letter in enumerate(pattern, 1):
        before = len(timeline.restarts)
        timeline.play(letter)
        if len(timeline.restarts) > before:
            known = [(at, seen) for at, seen in enumerate(pattern[:tick], 1) if seen != "?"][-3:]
            assert [seen for _, seen in known] == ["O"] * 3
            assert known[-1][0] - known[0][0] <= 5
            assert letter == "O"
            return
    runs = _first_full_run(pattern)
    assert runs is None


def _first_full_run(pattern: str) -> int | None:
    recent: list[int] = []
    for tick, letter in enumerate(pattern):
        recent = [at for at in recent if tick - at <= 5]
        recent = [] if letter == "U" else recent + [tick] * (letter == "O")
        if len(recent) >= 3 and letter == "O":
            return tick
    return None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 10752), min_size=1, max_size=300))
def test_never_at_or_under_the_limit(values: list[float]) -> None:
    timeline = Timeline()
    for used in values:
        timeline.see({"GPU-0": Card(used)})
    assert timeline.restarts == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 30000), st.floats(0, 10752)), min_size=1, max_size=200))
def test_never_while_the_sidecars_own_memory_is_inside(values: list[tuple[float, float]]) -> None:
    timeline = Timeline()
    for used, own in values:
        timeline.see({"GPU-0": Card(max(used, own), own_mib=own)})
    assert timeline.restarts == []


@settings(max_examples=20, deadline=None)
@given(st.floats(-36000, 36000))
def test_where_the_clock_begins_means_nothing(start_s: float) -> None:
    shifted = Timeline(now_s=float(round(start_s)))
    plain = Timeline()
    pattern = "OOUO?OO" + "U" * 5 + "OOO" * 30
    assert shifted.play(pattern) == plain.play(pattern)
