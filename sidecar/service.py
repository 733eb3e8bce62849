"""The one path that every answer takes: gate, price, turn, engine, protocol check, metrics.

Each generation runs in a task of its own, which owns the slot and the engine's iterator. The
caller reads events from an unbounded channel: a slow reader costs nobody a slot, and a reader
who is cancelled again and again (as anyio does) can not interrupt the engine's own clean-up.
The channel's size is bounded by `max_tokens`, which the gate has priced.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import anyio

from sidecar.errors import (
    DeadlineExceeded,
    Draining,
    EngineFault,
    NotReady,
    SidecarError,
)
from sidecar.event_order import EventOrder
from sidecar.gate import Gate
from sidecar.generation import (
    Done,
    Engine,
    EngineState,
    EngineStats,
    Event,
    Failed,
    GenerationRequest,
    Loading,
    Ready,
)
from sidecar.metrics import Metrics

log = logging.getLogger("sidecar.service")

CLOSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What is served, in the words of `/v1/models`: `id`, other names it answers to, what it can do."""

    id: str
    aliases: tuple[str, ...] = ()
    title: str = ""
    tools: bool = False
    vision: bool = False
    embeddings: bool = False
    image_hosts: tuple[str, ...] = ()

    def answers_to(self, name: str) -> bool:
        """Whether a request for `name` means this model."""
        return name == self.id or name in self.aliases


@dataclass(frozen=True, slots=True)
class Drained:
    """How a drain ended: answers that were finished, and answers that had to be cut."""

    finished: int
    cut: int


@dataclass(eq=False)
class Run:
    """One generation under way: its channel, its task, and why it was cut, if it was."""

    channel: asyncio.Queue[Event | SidecarError | None] = field(default_factory=asyncio.Queue)
    task: asyncio.Task[None] | None = None
    cut: SidecarError | None = None
    usage: Done | None = None

    def end(self, error: SidecarError) -> None:
        """Stop the work and tell the reader why."""
        if self.task is not None and not self.task.cancelling():
            self.cut = error
            self.task.cancel()


class Service:
    """Owns the engine and the gate. `stream()` is the only way to an answer."""

    def __init__(
        self,
        engine: Engine,
        gate: Gate,
        metrics: Metrics,
        model: ServedModel,
        *,
        log_prompts: bool = False,
    ) -> None:
        self._log_prompts = log_prompts
        self.model = model
        self.gate = gate
        self.metrics = metrics
        self.created = int(time.time())
        self._engine = engine
        self._runs: set[Run] = set()
        self._was_ready = False
        metrics.watch_running(lambda: gate.running)

    async def start(self) -> None:
        """Begin loading; `state()` tells how far it is."""
        await self._engine.start()

    async def stop(self) -> None:
        """End what still runs, then the engine."""
        self.gate.drain()
        await self._cut(Draining("The service stopped before the answer was complete."))
        await self._engine.stop()

    async def drain(self, seconds: float) -> Drained:
        """Take nothing new, let the rest finish for `seconds`, cut what is left then."""
        self.gate.drain()
        begun = set(self._runs)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.gate.idle()
        await self._cut(Draining("The service is stopping; the answer was cut.", retry_after_s=10))
        cut = sum(run.cut is not None for run in begun)
        return Drained(len(begun) - cut, cut)

    @property
    def draining(self) -> bool:
        """Whether new work is refused because the service stops."""
        return self.gate.closed() is not None

    def state(self) -> EngineState:
        """The engine's own state, from memory."""
        state = self._engine.state()
        self._was_ready |= isinstance(state, Ready)
        return state

    def phase(self) -> str:
        """Where the service stands, in one word: a phase of loading, ready, draining or failed."""
        state = self.state()
        if isinstance(state, Loading):
            return state.phase
        if isinstance(state, Failed):
            return "failed"
        return "draining" if self.draining else "ready"

    @property
    def was_ready(self) -> bool:
        """Whether the model has been ready at least once."""
        self.state()
        return self._was_ready

    def stats(self) -> EngineStats:
        """What the engine last said of itself, from memory."""
        return self._engine.stats()

    def refusal(self) -> SidecarError | None:
        """Why a generation would be refused right now; None when it would be tried."""
        if (closed := self.gate.closed()) is not None:
            return closed
        state = self._engine.state()
        if isinstance(state, Loading):
            return NotReady(f"The model is not ready yet ({_progress(state)}).", retry_after_s=5)
        if isinstance(state, Failed):
            return NotReady(f"The model could not be loaded: {state.reason}", retry_after_s=30)
        return None

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Yield the engine's events, checked.

        Raises any SidecarError, before `Started` as an answer of its own. Closing the iterator
        cancels the work and waits, within reason, until the engine has let go of it.
        """
        run = Run()
        run.task = asyncio.create_task(self._work(request, run))
        self._runs.add(run)
        run.task.add_done_callback(partial(self._ended, request, run))
        try:
            while (item := await run.channel.get()) is not None:
                if isinstance(item, SidecarError):
                    raise item
                yield item
        finally:
            await _closed(run.task)

    def _ended(self, request: GenerationRequest, run: Run, task: asyncio.Task[None]) -> None:
        self._runs.discard(run)
        if task.cancelled() and run.cut is not None:
            # Cancelled before its first step, a task runs nothing of itself, so `_work` could not say
            # it: without a word here the reader would wait for ever.
            run.channel.put_nowait(run.cut)
            self._record(request, run, run.cut.code, 0.0)

    async def _work(self, request: GenerationRequest, run: Run) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        outcome = "cancelled"
        try:
            await self._generate(request, began + request.deadline_s, run)
            outcome = "success"
            run.channel.put_nowait(None)
        except SidecarError as error:
            outcome = error.code
            run.channel.put_nowait(error)
        except asyncio.CancelledError:
            if run.cut is None:
                raise
            outcome = run.cut.code
            run.channel.put_nowait(run.cut)
        except Exception as error:
            outcome = EngineFault.code
            log.exception("generation failed unexpectedly", extra={"generation": request.id})
            run.channel.put_nowait(_unexpected(error))
        finally:
            self._record(request, run, outcome, loop.time() - began)

    async def _generate(self, request: GenerationRequest, deadline: float, run: Run) -> None:
        if (refusal := self.refusal()) is not None:
            raise refusal
        if isinstance(state := self._engine.state(), Ready):
            self.gate.resize(state.capacity)
        async with self.gate.place() as turn, _until(deadline, request.deadline_s):
            price = await self._engine.price(request)
            try:
                await turn(price)
                await self._forward(request, run)
            finally:
                # Whoever was priced and never had a turn would otherwise stay known to the engine.
                self._engine.forget(request)

    async def _forward(self, request: GenerationRequest, run: Run) -> None:
        order = EventOrder(request.n)
        # Engines write `stream` as an async generator; the protocol's type can not say so.
        events = cast(AsyncGenerator[Event, None], self._engine.stream(request))
        async with contextlib.aclosing(events):
            async for event in events:
                order.accept(event)
                if isinstance(event, Done):
                    run.usage = event
                run.channel.put_nowait(event)
        order.end()

    def _record(self, request: GenerationRequest, run: Run, outcome: str, seconds: float) -> None:
        self.metrics.answered(outcome, seconds)
        usage = run.usage.usage if run.usage else None
        details = {
            "generation": request.id,
            "outcome": outcome,
            "seconds": round(seconds, 3),
            "prompt_tokens": usage.prompt_tokens if usage else None,
            "completion_tokens": usage.completion_tokens if usage else None,
            "prompt": request.prompt if self._log_prompts else None,
        }
        log.info("generation", extra={k: v for k, v in details.items() if v is not None})

    async def _cut(self, error: SidecarError) -> None:
        runs = {run: run.task for run in self._runs if run.task and not run.task.done()}
        for run in runs:
            run.end(error)
        if runs:
            await asyncio.wait(runs.values(), timeout=CLOSE_SECONDS)


async def _closed(task: asyncio.Task[None]) -> None:
    # A task that is being cancelled (its deadline) is cleaning up; a second cancellation would cut
    # the engine's own clean-up short.
    if not task.cancelling():
        task.cancel()
    # anyio delivers a cancellation again at every await; only its own shield holds it off.
    with anyio.move_on_after(CLOSE_SECONDS, shield=True):
        await asyncio.wait([task])


@contextlib.asynccontextmanager
async def _until(deadline: float, deadline_s: float) -> AsyncIterator[None]:
    scope = asyncio.timeout_at(deadline)
    try:
        async with scope:
            yield
    except TimeoutError:
        if not scope.expired():
            raise
        raise DeadlineExceeded.of(deadline_s) from None


def _progress(state: Loading) -> str:
    share = "" if state.progress is None else f", {state.progress:.0%}"
    return f"{state.phase}{share}"


def _unexpected(error: Exception) -> EngineFault:
    return EngineFault(f"The engine failed unexpectedly ({type(error).__name__}).")
