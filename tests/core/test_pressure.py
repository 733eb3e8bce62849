"""What the sidecar does about its own memory, by its own look and for the watchdog."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest
from prometheus_client import CollectorRegistry

from sidecar.budget import MIB
from sidecar.engine import Ready
from sidecar.errors import EngineCrashed, MemoryPressure, OutOfMemory
from sidecar.gate import Gate
from sidecar.generation import EngineStats, GenerationRequest
from sidecar.held import Held
from sidecar.metrics import Metrics
from sidecar.pressure import LEASE_MAX_SECONDS, Budgets, Pressure
from sidecar.service import Service
from sidecar.shelf import ServedModel, only
from tests.fakes.engine import CAPACITY, ScriptedEngine, loading

MODEL = ServedModel("scripted")


class House:
    """A service whose memory a test sets, with a clock of its own for the leases."""

    def __init__(self, budgets: Budgets) -> None:
        self.now_s = 0.0
        self.engine = ScriptedEngine()
        metrics = Metrics(CollectorRegistry())
        self.service = Service(only(MODEL, self.engine), MODEL, Gate(), metrics, budgets=budgets)
        held = Held(only(MODEL, self.engine), MODEL, _nothing, lambda: None)
        self.service.pressure = self.pressure = Pressure(
            self.service.gate, held, self.service.events, budgets, metrics.cards, lambda: self.now_s
        )

    async def stands_at(self, mib: float) -> str:
        """One look at so much resident memory; the rung."""
        self.engine.told = EngineStats(resident_bytes=int(mib * MIB))
        await self.pressure.look()
        return self.pressure.now().rung.word

    @property
    def admits(self) -> bool:
        return self.service.refusal() is None

    def kinds(self) -> list[str]:
        return [f"{event['kind']} {event['by']}" for event in self.service.events.since()]


async def _nothing() -> None:
    """Nobody has to leave."""


def play(story: Callable[[House], Awaitable[None]], budgets: Budgets | None = None) -> None:
    async def all_of_it() -> None:
        await story(House(budgets or Budgets(memory_mib=1000.0)))

    asyncio.run(all_of_it())


def test_without_a_watchdog_it_climbs_by_its_own_look() -> None:
    async def story(house: House) -> None:
        house.engine.gives_back = 15.0
        assert await house.stands_at(920) == "steady"
        assert await house.stands_at(970) == "warn"
        assert house.admits
        assert await house.stands_at(985) == "stop_admitting"
        assert not house.admits
        assert await house.stands_at(985) == "stop_admitting"
        assert await house.stands_at(1001) == "over"
        assert house.engine.trims == 2
        assert await house.stands_at(920) == "steady"
        assert house.admits
        assert house.kinds() == [
            f"{kind} sidecar" for kind in ("warn", "stop_admitting", "trim", "over", "trim", "recover")
        ]
        trim = house.service.events.since()[2]
        assert (trim["before_mib"], trim["after_mib"], trim["freed_mib"]) == (985.0, 970.0, 15.0)
        assert (trim["own_mib"], trim["budget_mib"]) == (970.0, 1000.0)

    play(story)


def test_a_leap_passes_every_rung_in_order() -> None:
    async def story(house: House) -> None:
        assert await house.stands_at(1500) == "over"
        assert house.kinds() == [f"{kind} sidecar" for kind in ("warn", "stop_admitting", "over", "trim")]

    play(story)


def test_a_reading_on_the_line_does_not_flap() -> None:
    async def story(house: House) -> None:
        for mib in [981, 979, 981, 975, 981, 972]:
            assert await house.stands_at(mib) == "stop_admitting"
        assert house.kinds().count("stop_admitting sidecar") == 1

    play(story)


def test_who_has_no_budget_or_loads_stands_nowhere() -> None:
    async def unlimited(house: House) -> None:
        assert await house.stands_at(1e6) == "steady"

    async def loads(house: House) -> None:
        house.engine.set_state(loading())
        assert await house.stands_at(2000) == "steady"

    play(unlimited, Budgets(vram_mib=1000.0))
    play(loads)


def test_what_an_engine_held_before_it_died_is_told() -> None:
    async def story(house: House) -> None:
        await house.stands_at(900)
        house.engine.set_state(loading("restart"))
        event = house.service.events.record("engine_death", "it ended")
        assert (event["before_mib"], "own_mib" in event) == (900.0, False)

    play(story)


def test_a_plan_is_no_reading() -> None:
    async def story(house: House) -> None:
        house.engine.set_state(Ready("cuda:0", CAPACITY))
        assert await house.stands_at(1e6) == "steady"
        assert house.pressure.now().own is None

    play(story, Budgets(vram_mib=1000.0, memory_mib=1000.0))


def test_who_runs_goes_on_and_who_comes_is_refused() -> None:
    async def story(house: House) -> None:
        async with aclosing(house.service.stream(GenerationRequest("a", "[hold:1]", 16))) as running:
            await anext(running)
            await house.stands_at(990)
            with pytest.raises(MemoryPressure) as refused:
                async for _ in house.service.stream(GenerationRequest("b", "hi", 16)):
                    pass
            assert refused.value.retry_after_s
            house.engine.release()
            assert [type(event).__name__ async for event in running][-1] == "Done"

    play(story)


def test_the_watchdogs_ask_ends_by_itself() -> None:
    async def story(house: House) -> None:
        assert (await house.pressure.ask("stop_admitting", 10600.0, 180.0)).done
        house.now_s = 179.0
        await house.pressure.ask("stop_admitting", 10600.0, 180.0)  # asked again: from here
        house.now_s = 358.0
        await house.pressure.look()
        assert not house.admits
        house.now_s = 359.0
        await house.pressure.look()
        assert house.admits
        assert house.kinds() == ["warn watchdog", "stop_admitting watchdog", "recover sidecar"]

    play(story)


def test_no_ask_holds_for_ever() -> None:
    async def story(house: House) -> None:
        await house.pressure.ask("drain", None, float("inf"))
        house.now_s = LEASE_MAX_SECONDS
        await house.pressure.look()
        assert house.admits

    play(story)


def test_the_higher_of_the_two_rungs_counts() -> None:
    async def story(house: House) -> None:
        await house.stands_at(970)
        await house.pressure.ask("stop_admitting", 10600.0, 180.0)
        assert house.pressure.now().rung.word == "stop_admitting"
        assert (await house.pressure.ask("resume", 9000.0, 180.0)).said == "warn; new work is taken"
        assert await house.stands_at(920) == "steady"

    play(story)


def test_a_drain_is_said_and_holds() -> None:
    async def story(house: House) -> None:
        await house.pressure.ask("drain", 10803.0, 180.0)
        assert not house.admits
        assert house.service.phase() == "ready"
        assert house.kinds()[0] == "drain watchdog"
        assert house.service.events.since()[0]["before_mib"] == 10803.0

    play(story)


def test_nothing_to_give_back_is_said() -> None:
    async def story(house: House) -> None:
        outcome = await house.pressure.ask("trim", 10600.0, 180.0)
        assert not outcome.done
        assert "nothing to give back" in outcome.said
        house.engine.set_state(loading())
        assert "nothing is loaded" in (await house.pressure.ask("trim", 10600.0, 180.0)).said

    play(story)


def test_an_engine_that_dies_or_is_busy_while_it_trims_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dies() -> float | None:
        raise EngineCrashed("The engine died while it worked on this request.")

    async def hangs() -> float | None:
        await asyncio.Event().wait()
        return None

    async def story(house: House) -> None:
        monkeypatch.setattr("sidecar.pressure.TRIM_SECONDS", 0.01)
        for trim, said in ((dies, "died"), (hangs, "did not come to it")):
            monkeypatch.setattr(house.engine, "trim", trim)
            outcome = await house.pressure.ask("trim", None, 180.0)
            assert (outcome.done, said in outcome.said) == (False, True)

    play(story)


def test_a_request_that_is_lost_to_memory_is_an_event_without_its_words() -> None:
    async def story(house: House) -> None:
        with pytest.raises(OutOfMemory):
            async for _ in house.service.stream(GenerationRequest("a", "secret [fail:1:out_of_memory]", 16)):
                pass
        assert house.kinds() == ["out_of_memory sidecar"]
        assert "secret" not in str(house.service.events.since())

    play(story)
