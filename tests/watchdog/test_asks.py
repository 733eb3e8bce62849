"""The ladder's lower rungs: asked over a timeline, before anybody is restarted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watchdog.timeline import GPU, container
from watchdog.asks import Ask, climb
from watchdog.journal import Journal
from watchdog.loop import Parts, tick
from watchdog.observation import Card, Container, Observation, Report, Unknown
from watchdog.report import Answer
from watchdog.restarter import Done, Outcome
from watchdog.rungs import Rung, Stood
from watchdog.state import Limits, State
from watchdog.tally import Tally

TAKES = frozenset({"warn", "stop_admitting", "trim", "resume", "drain"})
LIMITS = Limits(limit_mib=10000.0)
WARM, HIGH, OVER, CALM = 9700.0, 9850.0, 10100.0, 9000.0


def observed(own: float | None, *, by: str = "report", takes: frozenset[str] = TAKES) -> Observation:
    """A look at one card: `own` by the sidecar's own report, or by the driver."""
    report = Report("b", "ready", own if by == "report" else None, 1.0, running=1, takes=takes)
    card = Card(OVER, 24576.0, own if by == "the driver" else None, by if by == "the driver" else "")
    return Observation(0.0, container(), {GPU: card}, report)


def asked(readings: Iterable[float | None], **how: object) -> list[list[str]]:
    """What each look asks for; a step of the ladder has its name behind it."""
    stood, found = Stood(), []
    for own in readings:
        stood, asks = climb(LIMITS, stood, observed(own, **how))
        found.append([f"{ask.what}:{ask.step}" for ask in asks])
    return found


@pytest.mark.parametrize("by", ["report", "the driver"])
def test_up_one_rung_at_a_time_and_down_again(by: str) -> None:
    assert asked([CALM, WARM, WARM, HIGH, HIGH, OVER, OVER, HIGH, WARM, CALM, CALM], by=by) == [
        [],
        ["warn:warn"],
        ["warn:"],
        ["stop_admitting:stop_admitting", "trim:trim"],
        ["stop_admitting:"],
        ["stop_admitting:", "trim:trim"],
        ["stop_admitting:"],
        ["stop_admitting:"],
        ["warn:recover"],
        ["resume:recover"],
        [],
    ]


def test_a_leap_passes_every_rung() -> None:
    steps = ["warn:warn", "stop_admitting:stop_admitting", "trim:trim"]
    assert asked([CALM, OVER, CALM]) == [[], steps, ["resume:recover"]]


def test_a_look_that_finds_nothing_out_moves_nothing() -> None:
    assert asked([HIGH, None, HIGH]) == [
        ["warn:warn", "stop_admitting:stop_admitting", "trim:trim"],
        [],
        ["stop_admitting:"],
    ]


def test_nothing_is_asked_of_whoever_would_not_understand() -> None:
    assert asked([WARM, HIGH, OVER], takes=frozenset()) == [[], [], []]
    assert asked([WARM, HIGH], takes=frozenset({"warn"})) == [["warn:warn"], []]


@pytest.mark.parametrize(
    "change",
    [
        {"report": None},
        {"report": Report("b", "load", OVER, 1.0, takes=TAKES)},
        {"report": Report("b", "draining", OVER, 1.0, takes=TAKES)},
        {"report": Report("b", "ready", OVER, 1000.0, takes=TAKES)},  # too old to be a witness
        {"look": {GPU: Card(OVER), "GPU-1": Card(OVER)}},  # a sum over two cards
    ],
)
def test_who_can_not_tell_is_not_asked(change: dict[str, object]) -> None:
    stood, asks = climb(LIMITS, Stood("b", Rung.WARN), replace(observed(OVER), **change))
    assert (stood, asks) == (Stood("b", Rung.WARN), ())


def test_a_new_boot_begins_below() -> None:
    stood, asks = climb(LIMITS, Stood("a", Rung.OVER), observed(CALM))
    assert (stood, asks) == (Stood("b"), ())


@given(st.lists(st.floats(0, LIMITS.limit_mib * 0.92), max_size=20))
def test_no_planned_reading_asks_for_anything(readings: list[float]) -> None:
    assert asked(readings) == [[]] * len(readings)


class World:
    """A sidecar whose memory a test sets, and a loop that sees and asks it."""

    def __init__(self, *, dry_run: bool = False, answer: Answer | None = None) -> None:
        self.now_s, self.own = 0.0, CALM
        self.asked: list[tuple[str, Ask]] = []
        self.acts: list[str] = []
        self.answer = answer
        self.state = State()
        self.journal = Journal(wall=lambda: datetime(2026, 1, 1, 3, 12, tzinfo=UTC))
        self.parts = Parts(
            limits=LIMITS,
            clock=lambda: self.now_s,
            observe=self._observe,
            restart=self._restart,
            report=lambda: None,
            journal=self.journal,
            tally=Tally(LIMITS, lambda: self.now_s, lambda: 1e9, dry_run),
            stop=Event(),
            dry_run=dry_run,
            ask=self._ask,
        )

    def play(self, readings: Iterable[float]) -> list[str]:
        """A tick for each reading; what was done, in order."""
        for self.own in readings:
            self.state = tick(self.parts, self.state)
            self.now_s += LIMITS.interval_s
        return self.acts

    def kinds(self) -> list[str]:
        return [entry["kind"] for entry in self.journal.entries()]

    def _observe(self) -> Observation:
        seen = observed(self.own, by="the driver")
        card = Card(self.own, 24576.0, self.own, "the driver")
        return replace(seen, now_s=self.now_s, look={GPU: card})

    def _ask(self, boot_id: str, ask: Ask) -> Answer | None:
        self.asked.append((boot_id, ask))
        self.acts.append(ask.what)
        return self.answer

    def _restart(self, _: Container) -> Outcome:
        self.acts.append("restart")
        return Done()


def test_first_asked_then_drained_then_restarted() -> None:
    world = World(answer=Answer(True, "done", 9850.0, 9800.0, 50.0))
    world.play([CALM, CALM, WARM, HIGH, OVER, OVER, OVER])
    assert world.acts == [
        "warn",
        "stop_admitting",
        "trim",
        "stop_admitting",
        "trim",
        "stop_admitting",
        "stop_admitting",
        "drain",
        "restart",
    ]
    assert world.kinds() == ["warn", "stop admitting", "trim", "trim", "drain", "restarted"]
    entries = world.journal.entries()
    assert entries[0]["sentence"] == "warn 03:12: own 9700 MiB, 97.0% of 10000; done"
    assert (entries[2]["before_mib"], entries[2]["after_mib"], entries[2]["freed_mib"]) == (9850, 9800, 50)
    boot_id, first = world.asked[0]
    assert (boot_id, first.own_mib, first.lease_s) == ("b", WARM, 3 * LIMITS.interval_s)


def test_what_falls_is_let_go() -> None:
    world = World()
    assert world.play([HIGH, CALM]) == ["warn", "stop_admitting", "trim", "resume"]
    assert world.kinds() == ["warn", "stop admitting", "trim", "recover"]
    assert world.journal.entries()[0]["sentence"].endswith("no answer")


def test_a_dry_run_asks_nobody() -> None:
    world = World(dry_run=True)
    assert world.play([HIGH]) == []
    assert world.kinds() == ["warn", "stop admitting", "trim"]


def test_a_fault_while_asking_stops_neither_the_other_asks_nor_the_restart() -> None:
    world = World()
    world.parts = replace(world.parts, ask=_fails)
    assert world.play([OVER, OVER, OVER, OVER, OVER]) == ["restart"]
    assert world.parts.tally.errors == 3 + 4 + 1


def test_an_engine_that_does_not_answer_is_not_a_new_rung() -> None:
    stood, asks = climb(LIMITS, Stood("b", Rung.WARN), Observation(0.0, Unknown("docker", "gone")))
    assert (stood, asks) == (Stood("b", Rung.WARN), ())


def _fails(boot_id: str, ask: Ask) -> Answer | None:
    raise RuntimeError(f"a fault of our own about {boot_id}: {ask.what}")
