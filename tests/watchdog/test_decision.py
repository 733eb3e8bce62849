"""The promises of the decision, one row each, on a virtual clock with 60 s between looks."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from tests.watchdog.timeline import (
    GPU,
    HUNG,
    LOST,
    OVER,
    UNDER,
    Timeline,
    constant,
    container,
    look,
    most_within,
)
from watchdog.breaker import Allowance, Breaker
from watchdog.decision import (
    Alert,
    Hold,
    Restart,
    accepted,
    decide,
    pretended,
    refused,
    second_look,
    unsure,
)
from watchdog.observation import Card, Observation, Report, Unknown
from watchdog.state import Limits, State


@pytest.mark.parametrize(
    ("pattern", "restarted_at"),
    [
        ("OOO", [3]),
        ("OOUOO", []),
        ("OUOUOUOU", []),
        ("OOUOOO", [6]),
        ("O?OO", [4]),
        ("OO?O", [4]),
        ("OOLO", [4]),  # a lost card is unknown too: it neither counts nor clears
        ("OO???O", [6]),  # exactly five intervals apart is still a streak
        ("OO?????O", []),  # expired
        ("OO?????OOO", [10]),
        ("OOO?", [3]),
        ("??????", []),
        ("?O?O?O", [6]),
        ("OOBOOOO", [7]),
        ("OONOO", []),
        ("OONOOOOO", [8]),  # running again is a new boot: two intervals of grace
        ("OOWOO", []),
        ("WOOOOO", [6]),  # a container that came while it was watched is a new one
        ("LLLLLL", []),
    ],
)
def test_three_in_a_row(pattern: str, restarted_at: list[int]) -> None:
    assert Timeline().play(pattern) == restarted_at


@pytest.mark.parametrize(
    ("used", "restarts"), [(10752.0, 0), (10752.5, 1), (10753.0, 1), (0.0, 0), (24576.0, 1)]
)
def test_the_boundary_is_strict(used: float, restarts: int) -> None:
    timeline = Timeline()
    for _ in range(3):
        timeline.see(look(used))
    assert len(timeline.restarts) == restarts


@pytest.mark.parametrize("strikes", [1, 2, 3, 7])
def test_as_many_strikes_as_were_set(strikes: int) -> None:
    timeline = Timeline(Limits(strikes=strikes, interval_s=120.0))
    assert timeline.play("O" * strikes) == [strikes]


def test_the_restart_names_its_readings() -> None:
    timeline = Timeline()
    for used in (10780.0, 10791.0, 10803.0):
        decision = timeline.see(look(used))
    assert isinstance(decision, Restart)
    assert decision.reason == "10780, 10791, 10803 MiB > 10752"
    assert [strike.used_mib for strike in decision.readings] == [10780.0, 10791.0, 10803.0]
    assert (decision.cause, decision.gpu) == ("over_limit", GPU)


def test_a_strike_says_which_one_it_is() -> None:
    assert Timeline().see(look(10780.0)) == Hold("strike 1 of 3 on GPU-0: 10780 MiB > 10752")


def test_degraded_after_five_looks_without_a_reading() -> None:
    timeline = Timeline()
    timeline.play("??????")
    assert [type(decision) for decision in timeline.decisions] == [Hold] * 4 + [Alert, Hold]
    assert timeline.kinds() == ["blind"]
    assert "nvidia-smi hangs" in timeline.state.alerts["blind"]
    timeline.play("U")
    assert timeline.state.alerts == {}
    timeline.play("?????")
    assert timeline.kinds() == ["blind", "blind"]


class TestSeveralCards:
    """A streak belongs to one card, by its UUID."""

    @staticmethod
    def play(*looks: dict[str, Card | Unknown]) -> list[int]:
        timeline = Timeline()
        for cards in looks:
            timeline.see(cards)
        return timeline.restarts

    def test_alternating_cards_are_no_streak(self) -> None:
        one = {"GPU-0": Card(OVER), "GPU-1": Card(UNDER)}
        other = {"GPU-0": Card(UNDER), "GPU-1": Card(OVER)}
        assert self.play(one, other, one, other) == []

    def test_the_second_card_counts(self) -> None:
        assert self.play(*[{"GPU-0": Card(UNDER), "GPU-1": Card(OVER)}] * 3) == [3]

    def test_an_unreadable_card_does_not_hide_the_other(self) -> None:
        unreadable = Unknown("not_available", "[N/A]")
        assert self.play(*[{"GPU-0": unreadable, "GPU-1": Card(OVER)}] * 3) == [3]

    def test_order_means_nothing_and_a_missing_card_is_unknown(self) -> None:
        both = {"GPU-1": Card(UNDER), "GPU-0": Card(OVER)}
        assert self.play(both, {"GPU-1": Card(UNDER)}, dict(reversed(both.items())), both) == [4]

    def test_a_card_that_stays_away_makes_the_guard_blind(self) -> None:
        timeline = Timeline()
        timeline.see({"GPU-0": Card(UNDER), "GPU-1": Card(UNDER)})
        for _ in range(5):
            timeline.see({"GPU-1": Card(UNDER)})
        assert timeline.kinds() == ["blind"]

    def test_the_fullest_card_tells_the_story(self) -> None:
        timeline = Timeline()
        for _ in range(3):
            decision = timeline.see({"GPU-0": Card(10800.0), "GPU-1": Card(11000.0)})
        assert isinstance(decision, Restart)
        assert decision.gpu == "GPU-1"


class TestStorms:
    """P23: memory that is over the limit for ever."""

    def test_three_in_thirty_minutes_and_six_on_the_first_day(self) -> None:
        times = constant(Timeline(), OVER, 1440)
        assert len(times) == 6
        assert most_within(times, 1800.0) == 3

    def test_thirty_in_a_week(self) -> None:
        timeline = Timeline()
        times = constant(timeline, OVER, 10080)
        assert len(times) == 30
        assert most_within(times, 1800.0) == 3
        assert set(timeline.kinds()) == {"budget_spent"}

    def test_it_says_when_the_next_try_is(self) -> None:
        timeline = Timeline()
        constant(timeline, OVER, 40)
        assert isinstance(timeline.decisions[-1], Hold)
        assert "the restart budget is spent, next try in 5." in timeline.decisions[-1].reason
        assert timeline.state.breaker.left(timeline.limits.allowance, timeline.now_s) == 0

    def test_a_slow_loader_is_bounded_too(self) -> None:
        """Restarts 20 minutes apart never fill a window, but none of them helps either."""
        timeline, times = Timeline(), []
        for minute in range(1440):
            before = len(timeline.restarts)
            phase = "load" if timeline.restarts and minute - timeline.restarts[-1] < 18 else "ready"
            timeline.see(look(OVER), report=Report(f"b{timeline.boot}", phase, running=1))
            times += [timeline.now_s] if len(timeline.restarts) > before else []
        assert len(times) == 6

    def test_restarts_that_help_for_a_minute_only_are_bounded_too(self) -> None:
        timeline, times = Timeline(), []
        for _ in range(10):
            times += constant(timeline, OVER, 3)
            constant(timeline, UNDER, 3)
        assert len(times) == 3
        assert timeline.kinds() == ["budget_spent"]

    def test_calm_has_to_last_for_a_whole_window(self) -> None:
        spent = Breaker(open_until_s=0.0, tried=True)
        timeline = Timeline(state=State(breaker=spent), now_s=60.0)
        constant(timeline, UNDER, 20)
        constant(timeline, OVER, 1)
        constant(timeline, UNDER, 30)
        assert timeline.state.breaker.left(timeline.limits.allowance, timeline.now_s) == 0
        constant(timeline, UNDER, 1)
        assert timeline.state.breaker.left(timeline.limits.allowance, timeline.now_s) == 3

    def test_a_restart_that_helps_for_long_gives_the_budget_back(self) -> None:
        timeline = Timeline()
        for _ in range(10):
            assert len(constant(timeline, OVER, 6)) == 1
            constant(timeline, UNDER, 40)
        assert timeline.kinds() == []

    def test_after_the_pause_and_a_calm_window_all_is_as_before(self) -> None:
        timeline = Timeline()
        constant(timeline, OVER, 30)
        constant(timeline, UNDER, 6 * 60 + 31)
        assert timeline.state.breaker.left(timeline.limits.allowance, timeline.now_s) == 3

    @pytest.mark.parametrize("most", [1, 2, 5])
    def test_another_allowance(self, most: int) -> None:
        limits = Limits(allowance=Allowance(most, 3600.0, 7200.0))
        assert most_within(constant(Timeline(limits), OVER, 1440), 3600.0) == most


class TestOneAtATime:
    """P24, P29 and F54: what happens while a restart is under way."""

    def test_no_second_restart_before_a_new_boot(self) -> None:
        timeline = Timeline(effective=False)
        constant(timeline, OVER, 300)
        assert timeline.restarts == [3]
        assert timeline.kinds() == ["restart_failed"]
        assert "restart_failed" in timeline.state.alerts

    def test_the_alert_comes_after_ten_minutes(self) -> None:
        timeline = Timeline(effective=False)
        constant(timeline, OVER, 12)
        assert timeline.kinds() == []
        constant(timeline, OVER, 1)
        assert timeline.kinds() == ["restart_failed"]

    def test_it_ends_with_the_new_boot(self) -> None:
        timeline = Timeline(effective=False)
        constant(timeline, OVER, 20)
        timeline.boot += 1
        timeline.play("UU")
        assert timeline.state.alerts == {}

    def test_a_refused_call_costs_nothing_and_waits_longer_each_time(self) -> None:
        limits, state = Limits(interval_s=1.0), State()
        tries = []
        for second in range(200):
            seen = Observation(float(second), container(), look(OVER))
            state, decision = decide(limits, state, seen)
            if isinstance(decision, Restart):
                tries.append(second)
                state = refused(state, float(second))
        waits = [later - earlier for earlier, later in itertools.pairwise(tries)]
        assert waits[:7] == [1, 2, 4, 8, 16, 32, 60]
        assert max(waits) == 60
        assert state.breaker.restarts_s == ()

    def test_an_unsure_call_that_happened_counts_once(self) -> None:
        state = unsure(self.after("OOO"), 120.0)
        state, decision = decide(Limits(), state, Observation(180.0, container(2), look(UNDER)))
        assert isinstance(decision, Hold)
        assert state.asked is None
        assert state.breaker.restarts_s == (120.0,)

    def test_an_unsure_call_that_did_not_happen_is_repeated_once_it_has_settled(self) -> None:
        state = unsure(self.after("OOO"), 120.0)
        decisions = []
        for now_s in (180.0, 240.0):
            state, decision = decide(Limits(), state, Observation(now_s, container(), look(OVER)))
            decisions.append(type(decision))
        assert decisions == [Hold, Restart]
        assert state.breaker.restarts_s == ()

    def test_a_container_that_our_call_left_stopped_is_started(self) -> None:
        state = unsure(self.after("OOO"), 120.0)
        for now_s, expected in ((180.0, Hold), (240.0, Restart)):
            seen = Observation(now_s, container(state="exited"), look(None))
            state, decision = decide(Limits(), state, seen)
            assert isinstance(decision, expected)
        assert isinstance(decision, Restart)
        assert decision.cause == "left_stopped"
        state, still = second_look(Limits(), state, decision, seen)
        assert still == decision
        running = Observation(240.0, container(2), look(None))
        assert isinstance(second_look(Limits(), state, decision, running)[1], Hold)

    def test_but_not_for_ever(self) -> None:
        state, tries, told = unsure(self.after("OOO"), 120.0), 0, []
        for tick in range(3, 100):
            seen = Observation(tick * 60.0, container(state="exited"), look(None))
            state, decision = decide(Limits(), state, seen)
            if isinstance(decision, Restart):
                tries, state = tries + 1, refused(state, tick * 60.0)
            told += [decision.kind] if isinstance(decision, Alert) else []
        assert tries == 8
        assert told == ["restart_failed"]

    def test_and_not_faster_than_its_back_off(self) -> None:
        state = unsure(self.after("OOO"), 120.0)
        for now_s, expected in ((240.0, Restart), (241.0, Hold), (242.0, Restart)):
            seen = Observation(now_s, container(state="exited"), look(None))
            state, decision = decide(Limits(), state, seen)
            assert isinstance(decision, expected)
            state = refused(state, now_s) if expected is Restart else state

    def test_a_dry_run_keeps_the_same_pace(self) -> None:
        limits, state, times = Limits(), State(), []
        for tick in range(1440):
            state, decision = decide(limits, state, Observation(tick * 60.0, container(), look(OVER)))
            if isinstance(decision, Restart):
                times.append(tick * 60.0)
                state = pretended(limits, state, tick * 60.0)
        assert 5 <= len(times) <= 6
        assert most_within(times, 1800.0) == 3

    @staticmethod
    def after(pattern: str) -> State:
        """The state in which the wish was made, before anybody acted."""
        state = State()
        for tick, _ in enumerate(pattern):
            state, _ = decide(Limits(), state, Observation(tick * 60.0, container(), look(OVER)))
        return state


class TestWhoseMemory:
    """P25: memory of others is never a reason."""

    def test_own_memory_under_the_limit_never_restarts(self) -> None:
        timeline = Timeline()
        for _ in range(100):
            timeline.see(look(12000.0, own=6500.0))
        assert timeline.restarts == []
        assert timeline.kinds() == ["foreign_vram"]
        assert "other processes hold 5500 MiB" in timeline.state.alerts["foreign_vram"]

    def test_a_short_spike_of_others_is_no_news(self) -> None:
        timeline = Timeline()
        for own in (6500.0, 6500.0, None, 6500.0):
            timeline.see(look(12000.0 if own else UNDER, own=own))
        assert timeline.kinds() == []

    def test_own_memory_over_the_limit_does(self) -> None:
        timeline = Timeline()
        for _ in range(3):
            timeline.see(look(12000.0, own=10900.0))
        assert timeline.restarts == [3]

    def test_exactly_the_limit_is_not_over(self) -> None:
        timeline = Timeline()
        for _ in range(9):
            timeline.see(look(12000.0, own=10752.0))
        assert timeline.restarts == []

    def test_the_whole_card_counts_while_own_memory_is_not_known(self) -> None:
        timeline = Timeline()
        for own in (6500.0, None, None, None):
            timeline.see(look(12000.0, own=own))
        assert timeline.restarts == [4]

    def test_scope_card_is_the_seed_to_the_letter(self) -> None:
        timeline = Timeline(Limits(scope="card"))
        for _ in range(3):
            timeline.see(look(12000.0, own=6500.0))
        assert timeline.restarts == [3]

    def test_foreign_on_one_card_does_not_hide_the_other(self) -> None:
        timeline = Timeline()
        for _ in range(3):
            timeline.see({"GPU-0": Card(12000.0, own_mib=1.0), "GPU-1": Card(12000.0, own_mib=11000.0)})
        assert timeline.restarts == [3]


class TestGrace:
    """Loading, draining, new boots."""

    def test_no_strikes_while_loading(self) -> None:
        timeline = Timeline()
        for _ in range(20):
            timeline.see(look(OVER), report=Report("b", "warmup"))
        assert timeline.restarts == []
        for _ in range(3):
            timeline.see(look(OVER), report=Report("b", "ready", running=1))
        assert timeline.restarts == [23]

    @pytest.mark.parametrize("phase", ["download", "quantize", "load", "kernels", "warmup", "draining"])
    def test_stuck_is_no_licence(self, phase: str) -> None:
        timeline = Timeline()
        for _ in range(60):
            timeline.see(look(OVER), report=Report("b1", phase))
        assert timeline.restarts[:1] == [33]  # 30 minutes, then three strikes

    def test_each_boot_may_load_for_as_long(self) -> None:
        timeline = Timeline()
        for boot_id in "a" * 25 + "b" * 25:
            timeline.see(look(OVER), report=Report(boot_id, "load"))
        assert timeline.restarts == []

    def test_a_report_that_fails_now_and_then_does_not_stretch_it(self) -> None:
        timeline = Timeline()
        for tick in range(40):
            report = None if tick % 4 == 3 else Report("b1", "load")
            timeline.see(look(OVER), report=report)
        assert timeline.restarts[:1] == [33]

    @pytest.mark.parametrize("phase", ["ready", "failed", "unloaded", "something new"])
    def test_other_phases_have_none(self, phase: str) -> None:
        timeline = Timeline()
        for _ in range(3):
            timeline.see(look(OVER), report=Report("b", phase))
        assert timeline.restarts == [3]

    def test_without_a_report_the_health_check_is_asked(self) -> None:
        timeline = Timeline()
        for _ in range(5):
            timeline.see(look(OVER), container(health="starting"))
        assert timeline.restarts == []

    def test_another_boot_id_resets(self) -> None:
        timeline = Timeline()
        for boot_id in ("a", "a", "b", "b", "b", "b"):
            timeline.see(look(OVER), report=Report(boot_id, "ready"))
        assert timeline.restarts == []
        timeline.see(look(OVER), report=Report("b", "ready"))
        assert timeline.restarts == [7]

    def test_a_report_that_comes_and_goes_is_no_new_boot(self) -> None:
        timeline = Timeline()
        for report in (None, Report("a", "ready"), None):
            timeline.see(look(OVER), report=report)
        assert timeline.restarts == [3]

    def test_a_shrinking_uptime_is_a_new_boot(self) -> None:
        timeline = Timeline()
        for uptime_s in (3600.0, 3600.0, 5.0, 60.0):
            target = container(root_pid=None, pids=frozenset(), uptime_s=uptime_s)
            timeline.see(look(OVER), target)
        assert timeline.restarts == []

    def test_processes_that_come_and_go_are_no_new_boot(self) -> None:
        timeline = Timeline()
        for extra in ({7}, {8, 9}, set()):
            timeline.see(look(OVER), container(pids=frozenset({100, *extra})))
        assert timeline.restarts == [3]

    def test_another_container_is_a_new_boot(self) -> None:
        timeline = Timeline()
        for name in ("c1", "c1", "c2", "c2"):
            timeline.see(look(OVER), container(id=name))
        assert timeline.restarts == []


@pytest.mark.parametrize("state", ["created", "exited", "dead", "restarting", "removing", "paused"])
def test_a_container_that_does_not_run_is_never_restarted(state: str) -> None:
    timeline = Timeline()
    timeline.play("OO")
    for _ in range(5):
        decision = timeline.see(look(OVER), container(state=state))
        assert decision == Hold(f"waiting: llm-sidecar is {state}")
    timeline.play("OO")
    assert timeline.restarts == []
    assert timeline.kinds() == []


@pytest.mark.parametrize("cause", ["docker_unreachable", "docker_timeout", "docker_forbidden"])
def test_an_engine_that_does_not_answer_neither_counts_nor_clears(cause: str) -> None:
    timeline = Timeline()
    timeline.play("OO")
    timeline.see(look(OVER), Unknown(cause, "the Docker socket refuses"))
    timeline.play("O")
    assert timeline.restarts == [4]


def test_an_engine_that_stays_away_makes_the_guard_blind() -> None:
    timeline = Timeline()
    for _ in range(6):
        timeline.see(look(UNDER), Unknown("docker_unreachable", "the Docker socket refuses"))
    assert timeline.kinds() == ["blind"]
    assert "the Docker socket refuses" in timeline.state.alerts["blind"]


def test_two_containers_are_named_and_left_alone() -> None:
    timeline = Timeline()
    timeline.play("OO")
    for _ in range(4):
        timeline.see(look(OVER), Unknown("ambiguous", "two containers match: a, b"))
    assert timeline.restarts == []
    assert timeline.kinds() == ["ambiguous_container"]


class TestLost:
    """F42: the container lost the card, and the card is still there."""

    @staticmethod
    def play(pattern: str, report: Report | None) -> Timeline:
        timeline = Timeline()
        steps = {"L": LOST, "?": HUNG, "U": look(UNDER)}
        for letter in pattern:
            timeline.see(steps[letter], report=report)
        return timeline

    def test_the_alert_comes_at_once_with_cause_and_cure(self) -> None:
        timeline = self.play("L", Report("b", "ready", running=1))
        (decision,) = timeline.decisions
        assert isinstance(decision, Alert)
        assert decision.kind == "gpu_lost"
        assert "systemctl daemon-reload" in decision.text
        assert "cgroupfs" in decision.text

    @pytest.mark.parametrize(
        ("pattern", "report", "restarted_at"),
        [
            ("LLL", Report("b", "failed"), [3]),
            ("LLL", Report("b", "ready"), [3]),  # nobody is served
            ("LLL", Report("b", "unloaded"), [3]),
            ("LL?L", Report("b", "failed"), [4]),
            ("LLUL", Report("b", "failed"), []),
            ("LL?????L", Report("b", "failed"), []),
            ("LLL?", Report("b", "ready", running=1), []),
            ("LLL?", Report("b", "ready", waiting=1), []),
            ("LLLLLL", Report("b", "load"), []),
            ("LLLLLL", None, []),
        ],
    )
    def test_one_restart_when_there_is_nothing_to_lose(
        self, pattern: str, report: Report | None, restarted_at: list[int]
    ) -> None:
        assert self.play(pattern, report).restarts == restarted_at

    def test_never_on_a_look_that_found_nothing_out(self) -> None:
        timeline = self.play("LLL", Report("b", "ready", running=1))
        assert isinstance(timeline.see(HUNG, report=Report("b", "ready")), Hold)
        timeline.see(LOST, report=Report("b", "ready"))
        assert timeline.restarts == [5]

    def test_from_the_same_budget(self) -> None:
        timeline, times = Timeline(), []
        for _ in range(1440):
            before = len(timeline.restarts)
            timeline.see(LOST, report=Report(f"b{timeline.boot}", "failed"))
            times += [timeline.now_s] if len(timeline.restarts) > before else []
        assert len(times) == 6
        assert most_within(times, 1800.0) == 3

    def test_an_unhealthy_container_without_a_report_is_failing(self) -> None:
        timeline = Timeline()
        for _ in range(3):
            timeline.see(LOST, container(health="unhealthy"))
        assert timeline.restarts == [3]

    def test_the_alert_goes_with_the_card_back(self) -> None:
        timeline = self.play("LU", None)
        assert timeline.state.alerts == {}


class TestNothingToWatch:
    """A machine without a GPU is no fault; a card that went away is."""

    none = Unknown("no_gpu", "no nvidia-smi and no driver")

    def test_it_is_said_and_stays_calm(self) -> None:
        timeline = Timeline()
        for _ in range(20):
            assert timeline.see(self.none) == Hold("nothing to watch: no GPU here")
        assert timeline.state.alerts == {}

    def test_a_card_that_was_seen_before_makes_it_blind(self) -> None:
        timeline = Timeline()
        timeline.see(look(UNDER))
        for _ in range(5):
            timeline.see(self.none)
        assert timeline.kinds() == ["blind"]

    def test_a_card_that_appears_is_watched(self) -> None:
        timeline = Timeline()
        timeline.see(self.none)
        timeline.play("OOO")
        assert timeline.restarts == [4]


class TestSecondLook:
    """Time has passed since the third reading; what is true now decides."""

    @pytest.mark.parametrize(
        ("again", "said"),
        [
            (Observation(121.0, container(), look(UNDER)), "recovered: 9000 MiB at the second look"),
            (Observation(121.0, container(), look(None)), "the second look could not read the card"),
            (Observation(121.0, container(), look(OVER, own=9000.0)), "recovered: 10800 MiB"),
            (Observation(121.0, container(2), look(OVER)), "the second look found a new boot"),
            (Observation(121.0, container(state="exited"), look(OVER)), "found no running container"),
            (Observation(121.0, Unknown("docker_timeout", ""), look(OVER)), "found no running container"),
            (Observation(121.0, container(), {"GPU-9": Card(OVER)}), "could not read the card"),
            (Observation(121.0, container(), look(OVER), Report("b", "draining")), "sidecar is draining"),
            (Observation(121.0, container(), look(OVER), Report("b", "load")), "sidecar is loading"),
        ],
    )
    def test_what_calls_it_off(self, again: Observation, said: str) -> None:
        state = TestOneAtATime.after("OOO")
        wish = Restart("over_limit", "", state.strikes[GPU], GPU)
        _, decision = second_look(Limits(), state, wish, again)
        assert isinstance(decision, Hold)
        assert said in decision.reason

    def test_only_a_look_under_the_limit_clears_the_strikes(self) -> None:
        state = TestOneAtATime.after("OOO")
        wish = Restart("over_limit", "", state.strikes[GPU], GPU)
        unread, _ = second_look(Limits(), state, wish, Observation(121.0, container(), look(None)))
        calmed, _ = second_look(Limits(), state, wish, Observation(121.0, container(), look(UNDER)))
        assert len(unread.strikes[GPU]) == 3
        assert calmed.strikes == {}

    def test_a_lost_card_that_is_back(self) -> None:
        wish = Restart("gpu_lost", "")
        again = Observation(121.0, container(), look(UNDER), Report("b", "failed"))
        assert isinstance(second_look(Limits(), State(), wish, again)[1], Hold)
        lost = replace(again, look=LOST)
        assert second_look(Limits(), State(), wish, lost)[1] == wish
        busy = replace(lost, report=Report("b", "ready", running=1))
        assert isinstance(second_look(Limits(), State(), wish, busy)[1], Hold)


def test_a_limit_that_no_card_can_exceed_is_said() -> None:
    timeline = Timeline()
    for _ in range(3):
        timeline.see({GPU: Card(5000.0, 8192.0)})
    timeline.play("?")
    assert timeline.kinds() == ["limit_above_card"]
    assert "VRAM_BUDGET=10752MiB can never be exceeded on a card of 8192 MiB" in str(
        timeline.state.alerts["limit_above_card"]
    )


def test_a_pause_of_the_machine_expires_the_streak() -> None:
    timeline = Timeline()
    timeline.play("OO")
    timeline.now_s += 3600.0
    timeline.play("OO")
    assert timeline.restarts == []


def test_accepted_forgets_the_failures_before() -> None:
    state = accepted(Limits(), refused(refused(State(), 0.0), 1.0), 2.0)
    assert (state.failures, state.strikes) == (0, {})
