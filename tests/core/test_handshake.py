"""The watchdog and the sidecar over the socket between them: every step is an event on both sides.

The watchdog's loop is the real one, on its own thread, over a real unix socket; the driver's reading and
Docker are what the test says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from prometheus_client import CollectorRegistry

from sidecar.budget import MIB
from sidecar.control import Control, listening
from sidecar.gate import Gate
from sidecar.generation import EngineStats
from sidecar.metrics import Metrics
from sidecar.pressure import Budgets
from sidecar.service import Service
from sidecar.shelf import ServedModel, only
from tests.fakes.engine import ScriptedEngine
from watchdog import report
from watchdog.journal import Journal
from watchdog.loop import Parts, tick
from watchdog.observation import Card, Container, Observation, Report
from watchdog.restarter import Done, Outcome
from watchdog.state import Limits, State
from watchdog.tally import Tally

MODEL = ServedModel("scripted")
CALM, WARM, HIGH, OVER = 9000.0, 10400.0, 10600.0, 10800.0


@dataclass
class Watchdog:
    """Sees the readings that a test gives it, one for each look."""

    path: str
    limits: Limits = field(default_factory=Limits)
    own_mib: float = CALM
    now_s: float = 0.0
    state: State = field(default_factory=State)
    restarts: int = 0
    older_sidecar: bool = False

    def __post_init__(self) -> None:
        self.journal = Journal()
        self.parts = Parts(
            limits=self.limits,
            clock=lambda: self.now_s,
            observe=self._observe,
            restart=self._restart,
            report=self._report,
            journal=self.journal,
            tally=Tally(self.limits, lambda: self.now_s, lambda: 1e9),
            stop=Event(),
            ask=partial(_asked, self.path, self.limits.limit_mib),
        )

    async def look(self, *readings: float) -> None:
        """A look for each reading."""
        for self.own_mib in readings:
            self.state = await asyncio.to_thread(tick, self.parts, self.state)
            self.now_s += self.limits.interval_s

    def steps(self) -> list[str]:
        return [entry["kind"].replace(" ", "_") for entry in self.journal.entries()]

    def _observe(self) -> Observation:
        container = Container("c1", "llm-sidecar", "running")
        card = Card(self.own_mib, 24576.0, self.own_mib, "the driver")
        return Observation(self.now_s, container, {"GPU-0": card}, self._report())

    def _report(self) -> Report | None:
        told = report.ask(self.path)
        return replace(told, takes=frozenset()) if told and self.older_sidecar else told

    def _restart(self, _: Container) -> Outcome:
        self.restarts += 1
        return Done()


def _asked(path: str, limit_mib: float, boot_id: str, ask: Any) -> report.Answer | None:
    return report.ask_for(path, boot_id, limit_mib, ask)


def play(path: Path, story: Callable[[Service, ScriptedEngine, Watchdog], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        engine = ScriptedEngine()
        service = Service(
            only(MODEL, engine), MODEL, Gate(), Metrics(CollectorRegistry()), budgets=Budgets(10752.0)
        )
        async with listening(service, path) as control:
            assert isinstance(control, Control)
            looking = asyncio.create_task(service.pressure.run())
            await story(service, engine, Watchdog(str(path)))
            looking.cancel()

    asyncio.run(all_of_it())


def steps(service: Service) -> list[str]:
    return [event["kind"] for event in service.events.since()]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


def test_up_the_ladder_to_the_restart(tmp_path: Path) -> None:
    async def story(service: Service, engine: ScriptedEngine, watchdog: Watchdog) -> None:
        engine.told, engine.gives_back = EngineStats(resident_bytes=1000 * MIB), 20.0
        await watchdog.look(CALM, CALM, WARM)
        assert service.refusal() is None
        assert (steps(service), watchdog.steps()) == (["warn"], ["warn"])
        await watchdog.look(HIGH)
        assert service.refusal() is not None
        up: Sequence[str] = ["warn", "stop_admitting", "trim"]
        assert (steps(service), watchdog.steps()) == (up, up)
        assert (engine.trims, watchdog.restarts) == (1, 0)
        await watchdog.look(OVER, OVER, OVER)
        assert watchdog.restarts == 1
        assert steps(service) == [*up, "trim", "drain", "over"]
        assert watchdog.steps() == [*up, "trim", "drain", "restarted"]
        trims = [entry for entry in watchdog.journal.entries() if entry["kind"] == "trim"]
        assert trims[0]["freed_mib"] == 20.0
        told = [event for event in service.events.since() if event["by"] == "watchdog"]
        assert len(told) == 6
        assert {event["boot_id"] for event in told} == {service.events.boot_id}

    play(tmp_path / "control.sock", story)


def test_what_falls_is_admitted_again(tmp_path: Path) -> None:
    async def story(service: Service, engine: ScriptedEngine, watchdog: Watchdog) -> None:
        await watchdog.look(CALM, HIGH, WARM)
        assert service.refusal() is None
        await watchdog.look(CALM)
        assert steps(service)[-2:] == watchdog.steps()[-2:] == ["recover", "recover"]
        assert (service.pressure.now().rung.word, watchdog.restarts) == ("steady", 0)

    play(tmp_path / "control.sock", story)


def test_a_watchdog_that_dies_silences_nobody(tmp_path: Path) -> None:
    async def story(service: Service, engine: ScriptedEngine, watchdog: Watchdog) -> None:
        watchdog = Watchdog(watchdog.path, Limits(interval_s=0.5))
        await watchdog.look(CALM, HIGH)  # and that was its last word
        assert "stop_admitting" in steps(service)
        await until(lambda: service.refusal() is None)
        assert ("recover", "sidecar") in [(event["kind"], event["by"]) for event in service.events.since()]

    play(tmp_path / "control.sock", story)


def test_either_may_be_the_older(tmp_path: Path) -> None:
    async def story(service: Service, engine: ScriptedEngine, watchdog: Watchdog) -> None:
        watchdog.older_sidecar = True
        await watchdog.look(CALM, HIGH, OVER, OVER, OVER)
        assert steps(service) == []
        assert watchdog.steps() == ["restarted"]
        # And who only ever asks for the report gets all that it knows.
        told = await asyncio.to_thread(report.ask, watchdog.path)
        assert told is not None
        assert told.phase == "ready"

    play(tmp_path / "control.sock", story)
