"""How much memory is ours, the rung that it stands on, and what is done about it: the one writer of that.

Two look at it: we ourselves, every second, and the watchdog, which asks over the control socket and has
better eyes (the driver's figure). The higher rung counts. What the watchdog asked for is a lease: it ends
by itself when the watchdog does not ask again, so that a dead watchdog silences nobody.

    warn              an event
    stop admitting    new requests get 503 `memory_pressure`; those that run or wait go on; then a trim
    over              the same; a restart is the watchdog's
    steady            a recover event, and everything as before
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sidecar.engine import Ready
from sidecar.errors import MemoryPressure, SidecarError
from sidecar.events import Events, Kind
from sidecar.gate import Gate
from sidecar.gpu import GpuReading
from sidecar.held import Held
from sidecar.ladder import Rung, rung
from sidecar.own_memory import Memory, Own, own_memory

log = logging.getLogger("sidecar.pressure")

LOOK_SECONDS = 1.0
TRIM_SECONDS = 4.0
LEASE_MAX_SECONDS = 600.0
RETRY_AFTER_SECONDS = 10.0

Asked = Literal["warn", "stop_admitting", "trim", "resume", "drain"]
TAKES: tuple[Asked, ...] = ("warn", "stop_admitting", "trim", "resume", "drain")
_LEASED = {
    "warn": Rung.WARN,
    "stop_admitting": Rung.STOP_ADMITTING,
    "drain": Rung.OVER,
    "resume": Rung.STEADY,
}
_CLIMBED: dict[Rung, tuple[Kind, str]] = {
    Rung.WARN: ("warn", "memory has outgrown the plan"),
    Rung.STOP_ADMITTING: ("stop_admitting", "no new work is taken; what runs goes on"),
    Rung.OVER: ("over", "above the budget"),
}


@dataclass(frozen=True, slots=True)
class Budgets:
    """The line that may not be passed: the card's, and main memory's where no card is used. None is none."""

    vram_mib: float | None = None
    memory_mib: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an ask, in words and MiB."""

    done: bool
    said: str
    before_mib: float | None = None
    after_mib: float | None = None
    freed_mib: float | None = None


class Pressure:
    """See the module. `run` looks; `ask` is the watchdog's; `now` is for whoever reports."""

    def __init__(
        self,
        gate: Gate,
        held: Held,
        events: Events,
        budgets: Budgets,
        cards: Callable[[], Sequence[GpuReading]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gate, self._held, self._events, self._budgets = gate, held, events, budgets
        self._cards, self._clock = cards, clock
        self._seen = Rung.STEADY
        self._leased, self._lease_until = Rung.STEADY, 0.0
        self._rung = Rung.STEADY
        self._last_mib: float | None = None
        self._trimming = asyncio.Lock()
        events.reading = self._reading

    def now(self) -> Memory:
        """From memory; never waits."""
        state, own = self._held.state(), self._own()
        ready = state if isinstance(state, Ready) else None
        page_tokens = ready.capacity.page_tokens if ready else 0
        return Memory(
            own=own,
            budget_mib=self._budget_mib(own),
            rung=self._rung,
            kv_reserved=self._gate.pages_reserved * page_tokens if ready else None,
            kv_total=ready.capacity.pages * page_tokens if ready else None,
            plan=ready.plan if ready else None,
        )

    async def run(self) -> None:
        """Look every second until cancelled. A look that fails is logged: the next one may go better."""
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("a look at the memory failed")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """One look of our own, and what follows from it."""
        before, self._seen = self._seen, self._stands()
        if self._clock() >= self._lease_until:
            self._leased = Rung.STEADY
        self._settle("sidecar")
        if self._seen > before and self._seen >= Rung.STOP_ADMITTING:
            await self._trim("sidecar")

    async def ask(self, what: Asked, own_mib: float | None, lease_s: float) -> Outcome:
        """What the watchdog wants at the reading that it took. Obeyed for `lease_s`, ten minutes at most."""
        if what == "trim":
            return await self._trim("watchdog", own_mib)
        self._leased = _LEASED[what]
        self._lease_until = self._clock() + min(max(lease_s, 0.0), LEASE_MAX_SECONDS)
        if what == "drain":
            running = f"{self._gate.running} running, {self._gate.waiting} waiting"
            self._events.record("drain", f"a restart is coming; {running}", by="watchdog", before_mib=own_mib)
        self._settle("watchdog", own_mib)
        said = "nothing new is taken" if self._gate.paused() else "new work is taken"
        return Outcome(True, f"{self._rung.word.replace('_', ' ')}; {said}", own_mib)

    def ran_out(self, error: SidecarError) -> None:
        """A request was lost to memory after all."""
        self._events.record("out_of_memory", error.message)

    def _own(self) -> Own | None:
        held = self._held
        by_card = [dict(card.by_process) for card in self._cards()]
        return None if held.engine is None else own_memory(held.state(), held.engine.stats(), by_card)

    def _budget_mib(self, own: Own | None) -> float | None:
        if own is None:
            return None  # whose memory would it be: the card's, or the machine's
        return self._budgets.vram_mib if own.on_card else self._budgets.memory_mib

    def _reading(self) -> dict[str, Any]:
        own = self._own()
        if own is None:  # it is gone, or loads: what it held last is what was before
            return {"before_mib": self._last_mib}
        return {"own_mib": round(own.mib, 1), "source": own.source, "budget_mib": self._budget_mib(own)}

    def _stands(self) -> Rung:
        """The rung by our own reading. Only what is loaded climbs: a load passes every line on its way."""
        own = self._own()
        limit_mib = self._budget_mib(own)
        if own is not None:
            self._last_mib = round(own.mib, 1)
        if own is None or limit_mib is None:
            return Rung.STEADY
        return rung(own.highest_mib, limit_mib, self._seen) if own.is_measured else Rung.STEADY

    def _settle(self, by: str, own_mib: float | None = None) -> None:
        """Make what is done fit the higher of the two rungs."""
        before, self._rung = self._rung, max(self._seen, self._leased)
        if self._rung == before:
            return
        self._gate.pause(self._refusal() if self._rung >= Rung.STOP_ADMITTING else None)
        if self._rung < before:
            said = "new work is taken again" if self._gate.paused() is None else "still nothing new is taken"
            text = f"from {before.word} to {self._rung.word}: {said}"
            self._events.record("recover", text.replace("_", " "), by=by, after_mib=own_mib)
        for step, (kind, text) in _CLIMBED.items():
            if before < step <= self._rung:
                self._events.record(kind, text, by=by, before_mib=own_mib)

    def _refusal(self) -> MemoryPressure:
        return MemoryPressure(
            "Memory is close to its budget, so no new work is taken until some of it is free; "
            "what runs goes on. Try again in a few seconds.",
            retry_after_s=RETRY_AFTER_SECONDS,
        )

    async def _trim(self, by: str, own_mib: float | None = None) -> Outcome:
        """Have the engine give back what it can; measured, and an event whatever came of it."""
        if self._trimming.locked():
            return Outcome(False, "a trim is under way")
        async with self._trimming:
            before = self._own()
            freed_mib, said = await self._given_back()
            after = self._own()
        outcome = Outcome(
            done=freed_mib is not None,
            said=said,
            before_mib=own_mib if before is None else round(before.mib, 1),
            after_mib=None if after is None else round(after.mib, 1),
            freed_mib=freed_mib,
        )
        self._events.record(
            "trim",
            said,
            by=by,
            before_mib=outcome.before_mib,
            after_mib=outcome.after_mib,
            freed_mib=freed_mib,
        )
        return outcome

    async def _given_back(self) -> tuple[float | None, str]:
        engine = self._held.engine
        if engine is None or not isinstance(engine.state(), Ready):
            return None, "nothing is loaded that could give memory back"
        try:
            async with asyncio.timeout(TRIM_SECONDS):
                freed_mib = await engine.trim()
        except TimeoutError:
            return None, f"the engine did not come to it within {TRIM_SECONDS:g} s"
        except SidecarError as error:
            return None, error.message
        if freed_mib is None:
            return None, "this engine has nothing to give back: all it holds was set aside at its start"
        return round(freed_mib, 1), f"the engine gave back {freed_mib:.0f} MiB"
