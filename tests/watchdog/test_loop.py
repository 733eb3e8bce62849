"""A tick is look, decide, look again, act, record: driven by lists, on a virtual clock."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from threading import Event
from typing import Any

import pytest

from tests.watchdog.timeline import GPU, LOST, OVER, UNDER, container, look
from watchdog import loop
from watchdog.journal import Journal
from watchdog.loop import Parts, tick
from watchdog.observation import Container, Drain, Look, Observation, Report, Target, Unknown
from watchdog.restarter import Done, Outcome, Refused, Unsure
from watchdog.state import Limits, State
from watchdog.tally import Tally

NOON = datetime(2026, 1, 1, 3, 12, tzinfo=UTC)


@dataclass
class World:
    """A clock, a container and a card that do as a test says."""

    limits: Limits = field(default_factory=Limits)
    dry_run: bool = False
    reads_locally: bool = False
    outcome: Outcome = field(default_factory=Done)
    target: Target = field(default_factory=container)
    report: Report | None = None
    now_s: float = 0.0
    looks: Iterator[Look] = field(default_factory=lambda: iter(()))
    restarted: list[str] = field(default_factory=list)
    on_restart: Callable[[], None] = field(default=lambda: None)
    stop: Event = field(default_factory=Event)
    state: State = field(default_factory=State)

    def __post_init__(self) -> None:
        self.journal = Journal(wall=lambda: NOON)
        self.tally = Tally(self.limits, lambda: self.now_s, lambda: 1e9 + self.now_s, self.dry_run)
        self.parts = Parts(
            limits=self.limits,
            clock=lambda: self.now_s,
            observe=self._observe,
            restart=self._restart,
            report=lambda: self.report,
            journal=self.journal,
            tally=self.tally,
            stop=self.stop,
            dry_run=self.dry_run,
            reads_locally=self.reads_locally,
        )

    def play(self, looks: Iterable[float | Look | None], ticks: int) -> State:
        """As many ticks, over these looks; the second look takes the next one."""
        self.looks = iter(each if isinstance(each, dict | Unknown) else look(each) for each in looks)
        for _ in range(ticks):
            self.state = tick(self.parts, self.state)
            self.now_s += self.limits.interval_s
        return self.state

    def sentences(self) -> list[str]:
        return [entry["sentence"] for entry in self.journal.entries()]

    def _observe(self) -> Observation:
        return Observation(self.now_s, self.target, next(self.looks), self.report)

    def _restart(self, target: Container) -> Outcome:
        self.restarted.append(target.name)
        self.on_restart()
        return self.outcome


def test_three_strikes_and_a_second_look() -> None:
    world = World()
    world.play([10780.0, 10791.0, 10803.0, 10803.0], 3)
    assert world.restarted == ["llm-sidecar"]
    assert world.sentences() == ["restarted 03:12: 10780, 10791, 10803 MiB > 10752"]


@pytest.mark.parametrize(
    ("again", "said"),
    [
        (UNDER, "called off 03:12: 10800, 10800, 10800 MiB > 10752; recovered: 9000 MiB at the second look"),
        (
            None,
            "called off 03:12: 10800, 10800, 10800 MiB > 10752; the second look could not read the card",
        ),
    ],
)
def test_the_second_look_calls_it_off(again: float | None, said: str) -> None:
    world = World()
    world.play([OVER, OVER, OVER, again], 3)
    assert world.restarted == []
    assert world.sentences() == [said]


def test_a_second_look_that_failed_is_repeated_at_the_next_tick() -> None:
    world = World()
    world.play([OVER, OVER, OVER, None, OVER, OVER], 4)
    assert world.restarted == ["llm-sidecar"]


def test_never_at_a_tick_that_found_nothing_out() -> None:
    world = World()
    world.play([OVER, OVER, OVER, None, None, OVER], 4)
    assert world.restarted == []


def test_the_entry_grows_until_the_new_boot_is_ready() -> None:
    world = World(report=Report("b0", "ready", 10770.0, 1.0, running=2))
    own = {GPU: replace(look(10803.0)[GPU], own_mib=10770.0)}
    world.play([own, own, own, own], 3)
    asked_s = world.now_s - 60.0
    world.journal.heard(Report("b0", "draining"), asked_s + 5)
    world.journal.heard(None, asked_s + 20)
    world.journal.heard(Report("b1", "load"), asked_s + 30)
    assert world.journal.following
    world.journal.heard(Report("b1", "ready", last_drain=Drain("b0", 2, 0)), asked_s + 41)
    assert not world.journal.following
    assert world.sentences() == [
        "restarted 03:12: 10803, 10803, 10803 MiB > 10752; own 10770; 2 streams finished, 0 cut; "
        "ready again after 41 s"
    ]
    (entry,) = world.journal.entries()
    assert (entry["used_mib"], entry["own_mib"], entry["cause"]) == ([10803.0] * 3, 10770.0, "over_limit")
    assert (entry["finished"], entry["cut"], entry["ready_after_s"]) == (2, 0, 41.0)


def test_the_drain_of_another_boot_is_not_told() -> None:
    world = World(report=Report("b0", "ready"))
    world.play([OVER] * 4, 3)
    world.journal.heard(Report("b1", "ready", last_drain=Drain("x", 2, 0)), world.now_s)
    assert world.sentences() == ["restarted 03:12: 10800, 10800, 10800 MiB > 10752; ready again after 60 s"]


def test_one_stream_is_one_stream() -> None:
    world = World(report=Report("b0", "ready"))
    world.play([OVER] * 4, 3)
    world.journal.heard(Report("b1", "ready", last_drain=Drain("b0", 1, 3)), world.now_s)
    assert "1 stream finished, 3 cut" in world.sentences()[0]


def test_dry_run_does_everything_but_the_act() -> None:
    world = World(dry_run=True)
    world.play([OVER] * 400, 300)
    assert world.restarted == []
    assert world.sentences()[0] == "would restart 03:12: 10800, 10800, 10800 MiB > 10752"
    assert sum(sentence.startswith("would restart") for sentence in world.sentences()) == 3
    assert world.tally.restarts == {}
    assert world.tally.outcomes["pretended"] == 3


def test_a_refused_call_is_tried_again_and_costs_nothing() -> None:
    world = World(outcome=Refused("Docker answered 409"))
    world.play([OVER] * 20, 6)
    assert len(world.restarted) == 4
    assert world.state.breaker.restarts_s == ()
    assert world.journal.entries()[0]["error"] == "Docker answered 409"


def test_an_unsure_call_waits_for_who_runs() -> None:
    world = World(outcome=Unsure("broke off"))
    world.play([OVER] * 20, 4)
    assert len(world.restarted) == 1
    world.target = container(2)
    world.play([OVER] * 20, 2)
    assert len(world.restarted) == 1
    assert len(world.state.breaker.restarts_s) == 1


def test_an_unsure_call_that_worked_is_told_to_its_end() -> None:
    world = World(outcome=Unsure("broke off"), report=Report("b0", "ready"))
    world.play([OVER] * 4, 3)
    world.journal.heard(Report("b0", "ready"), world.now_s)
    assert world.journal.following
    world.journal.heard(Report("b1", "ready"), world.now_s)
    assert world.sentences()[0].endswith("10800 MiB > 10752; ready again after 60 s")


def test_told_to_stop_nothing_is_restarted_any_more() -> None:
    world = World()
    world.play([OVER, OVER], 2)
    world.stop.set()
    world.play([OVER, OVER], 1)
    assert world.restarted == []


def test_what_stands_is_told_once_and_its_end_too() -> None:
    world = World()
    world.play([12000.0, *[None] * 7, UNDER, UNDER], 10)
    assert [re.sub(" 03:12.*", "", said) for said in world.sentences()] == ["alert", "alert over"]


def test_reasons_are_logged_when_they_change(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    with caplog.at_level(logging.INFO, "watchdog"):
        world.play([UNDER, 9001.0, OVER, 10900.0, UNDER, UNDER], 6)
    assert [record.message for record in caplog.records] == [
        "under the limit",
        "strike 1 of 3 on GPU-0: 10800 MiB > 10752",
        "strike 2 of 3 on GPU-0: 10800, 10900 MiB > 10752",
        "under the limit",
    ]


def test_nothing_to_watch_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    with caplog.at_level(logging.INFO, "watchdog"):
        world.play([Unknown("no_gpu", "none")] * 50, 50)
    assert [record.message for record in caplog.records] == ["nothing to watch: no GPU here"]
    assert world.tally.health() == replace(
        world.tally.health(), ok=True, status="nothing to watch", message="no GPU here"
    )


class TestNeverDies:
    """A fault of our own is logged and counted, and the next tick begins where this one began."""

    def test_a_look_that_raises(self) -> None:
        world = World()
        world.looks = iter(())  # the next look raises StopIteration
        ran = _run(world, ticks=3)
        assert (ran, world.tally.errors) == (3, 3)

    def test_a_restart_is_remembered_even_if_it_can_not_be_written_down(self) -> None:
        world = World()
        world.journal.restart = _fails
        world.play([OVER] * 30, 8)
        assert world.restarted == ["llm-sidecar"]
        assert world.tally.errors == 1

    def test_a_restart_that_raises_may_have_happened(self) -> None:
        world = World()
        world.on_restart = _fails
        world.looks = iter([look(OVER)] * 9)
        _run(world, ticks=4)
        assert (world.restarted, world.tally.errors) == (["llm-sidecar"], 1)
        assert world.tally.outcomes["unsure"] == 1
        assert not world.tally.restarting


def _fails(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a fault of our own")


def _run(world: World, ticks: int) -> int:
    """The real loop over a clock that jumps: each wait moves it."""
    ran = 0

    class Stop(Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal ran
            world.now_s += timeout or 0.0
            ran += 1
            if ran >= ticks:
                self.set()
            return self.is_set()

    world.parts = replace(world.parts, stop=Stop())
    loop.run(world.parts)
    return ran


def test_ticks_keep_to_their_grid() -> None:
    world, times = World(), []

    def observe() -> Observation:
        times.append(world.now_s)
        world.now_s += 7.0  # a look takes its time
        return Observation(world.now_s, world.target, look(UNDER))

    world.parts = replace(world.parts, observe=observe)
    _run(world, ticks=5)
    assert times == [0.0, 60.0, 120.0, 180.0, 240.0]


def test_a_look_that_took_too_long_skips_and_never_bunches() -> None:
    world, times = World(), []

    def observe() -> Observation:
        times.append(world.now_s)
        world.now_s += 200.0 if len(times) == 1 else 1.0
        return Observation(world.now_s, world.target, look(UNDER))

    world.parts = replace(world.parts, observe=observe)
    _run(world, ticks=3)
    assert all(later - earlier >= 59.0 for earlier, later in itertools.pairwise(times))
    assert times[:3] == [0.0, 200.0, 260.0]


def test_detection_takes_no_longer_than_three_intervals_and_a_reading() -> None:
    """P31: over from just after a look until the call."""
    world = World()
    leak_s = 0.1

    def observe() -> Observation:
        world.now_s += 3.0
        used = OVER if world.now_s > leak_s + 3.0 else UNDER
        return Observation(world.now_s, world.target, look(used))

    called: list[float] = []
    world.on_restart = lambda: called.append(world.now_s)
    world.parts = replace(world.parts, observe=observe)
    _run(world, ticks=6)
    assert called[0] - leak_s <= 3 * 60 + 10


class TestStaleView:
    """With the local driver, our own container may be the one that lost the card."""

    def test_it_leaves_so_that_docker_gives_it_a_new_view(self) -> None:
        world = World(reads_locally=True, report=Report("b", "ready", running=1))
        world.looks = iter([look(UNDER), *[LOST] * 50])
        ran = _run(world, ticks=40)
        assert ran == 5
        assert not world.parts.stop.is_set()

    def test_not_if_it_never_saw_a_card(self) -> None:
        world = World(reads_locally=True, report=Report("b", "ready", running=1))
        world.looks = iter([LOST] * 50)
        assert _run(world, ticks=40) == 40

    def test_not_through_the_containers_own_tool(self) -> None:
        world = World(report=Report("b", "ready", running=1))
        world.looks = iter([look(UNDER), *[LOST] * 50])
        assert _run(world, ticks=40) == 40
