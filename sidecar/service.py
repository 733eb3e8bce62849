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
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import cast

from sidecar import standing
from sidecar.channel import Channel
from sidecar.engine import Engine, Ready, ServiceState, StandIn
from sidecar.errors import Draining, NotLoaded, OutOfMemory, SidecarError
from sidecar.event_order import EventOrder
from sidecar.events import Events
from sidecar.gate import Gate, Hold
from sidecar.generation import Delta, Done, Embeddings, EngineStats, Event, GenerationRequest, Price
from sidecar.held import Held
from sidecar.metrics import Metrics
from sidecar.phases import Phases
from sidecar.pressure import Budgets, Pressure
from sidecar.run import Drained, Run, Runs, closed, named, told, until
from sidecar.shelf import ServedModel, Shelf

log = logging.getLogger("sidecar.service")


class Service:
    """Owns the engine and the gate. `stream()` is the only way to an answer."""

    def __init__(
        self,
        shelf: Shelf,
        model: ServedModel,
        gate: Gate,
        metrics: Metrics,
        *,
        autoload: bool = False,
        drain_s: float = 30.0,
        log_prompts: bool = False,
        events: Events | None = None,
        budgets: Budgets | None = None,
        hosted: StandIn | None = None,
    ) -> None:
        """`model` is served first. With `autoload` a request for another one is reason to load that.

        `hosted` answers where the engine can not, for whoever says that he may be answered so.
        """
        self.shelf = shelf
        self.gate = gate
        self.metrics = metrics
        self.created = int(time.time())
        self._autoload = autoload
        self._drain_s = drain_s
        self._log_prompts = log_prompts
        self._hosted = hosted
        self._held = Held(
            shelf, model, self._emptied, gate.closed, max_waiting=gate.max_queue if autoload else None
        )
        self._runs = Runs()
        self.events = events or Events()
        self.pressure = Pressure(gate, self._held, self.events, budgets or Budgets(), metrics.cards)

    @property
    def model(self) -> ServedModel:
        """The model that is held, or was the last."""
        return self._held.model

    @property
    def within_reach(self) -> tuple[ServedModel, ...]:
        """The models that a request can be about without anybody loading one first."""
        return self.shelf.models if self._autoload else (self.model,)

    async def start(self) -> None:
        """Begin loading; `state()` tells how far it is."""
        if self._held.engine is not None:
            await self._held.engine.start()

    async def stop(self) -> None:
        """End what still runs, then the engine."""
        self.gate.drain()
        await self._runs.cut(Draining("The service stopped before the answer was complete."))
        await self._held.stop()
        if self._hosted is not None:
            await self._hosted.close()

    async def drain(self, seconds: float) -> Drained:
        """Take nothing new, let the rest finish for `seconds`, cut what is left then."""
        self.gate.drain()
        begun = self._runs.open()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.gate.idle()
                await self._runs.elsewhere_over()
        await self._runs.cut(Draining("The service is stopping; the answer was cut.", retry_after_s=10))
        cut = sum(run.cut is not None for run in begun)
        return Drained(len(begun) - cut, cut)

    async def load(self, name: str) -> None:
        """Serve the model of that name: what runs with another one may finish, within the drain's time.

        Returns when the loading has begun. Raises UnknownModel, Draining, or StartError when no engine
        can be made.
        """
        await self._held.load(self.shelf.find(name))

    async def unload(self, name: str | None = None) -> None:
        """Let go of the model, the same way. Returns when its memory is free; again is harmless."""
        await self._held.unload(None if name is None else self.shelf.find(name))

    async def choose(self, name: str, deadline_s: float) -> ServedModel:
        """The model that a request for `name` is about; without a name, the one that is held.

        It is held when this returns: `stream` and `embed` say whether it is ready. With autoload it is
        loaded first where it is not, and waited for. Raises UnknownModel, NotLoaded for a model that
        may not be loaded by a request, QueueFull, and DeadlineExceeded.
        """
        with self.metrics.refusals():
            return await self._held.choose(name, deadline_s)

    async def embed(
        self, inputs: Sequence[str | tuple[int, ...]], deadline_s: float, model: ServedModel | None = None
    ) -> Embeddings:
        """The vectors of all inputs, in one turn of the gate. `model` as for `stream`."""
        return await self._runs.result(self._embed(inputs, deadline_s, model))

    async def _embed(
        self, inputs: Sequence[str | tuple[int, ...]], deadline_s: float, model: ServedModel | None
    ) -> Embeddings:
        engine = self._engine_for(model)
        loop = asyncio.get_running_loop()
        async with self.gate.place() as turn, until(loop.time() + deadline_s, deadline_s):
            await turn(Price(0, 0, 1))
            return await engine.embed(inputs)

    @property
    def draining(self) -> bool:
        """Whether new work is refused because the service stops."""
        return self.gate.closed() is not None

    def state(self) -> ServiceState:
        """The engine's own state, from memory; Unloaded when there is no engine."""
        return self._held.state()

    def phase(self) -> str:
        """Where it stands, in one word: a phase of loading, ready, draining, unloading, unloaded, failed."""
        return standing.phase(self.state(), draining=self.draining, leaving=self._held.leaving)

    @property
    def was_ready(self) -> bool:
        """Whether a model has been ready at least once."""
        return self._held.was_ready

    def stats(self) -> EngineStats:
        """What the engine last said of itself, from memory."""
        return EngineStats() if self._held.engine is None else self._held.engine.stats()

    def refusal(self) -> SidecarError | None:
        """Why a generation would be refused right now; None when it would be tried."""
        if (closed := self.gate.closed() or self.gate.paused()) is not None:
            return closed
        return standing.refusal(self.state(), self.model.id, leaving=self._held.leaving)

    async def stream(
        self, request: GenerationRequest, model: ServedModel | None = None
    ) -> AsyncGenerator[Event, None]:
        """Yield the engine's events, checked. `model` is the one that it is meant for; None is any.

        Raises any SidecarError, before `Started` as an answer of its own. Closing the iterator
        cancels the work and waits, within reason, until the engine has let go of it.
        """
        async with contextlib.aclosing(self.batches(request, model)) as batches:
            async for batch in batches:
                for event in batch:
                    yield event

    async def batches(
        self,
        request: GenerationRequest,
        model: ServedModel | None = None,
        *,
        hosted: bool = False,
        ahead: Callable[[Event], bool] | None = None,
    ) -> AsyncGenerator[list[Event], None]:
        """The same, each time all events that have come since the last. `hosted`: also of somebody else.

        `ahead` is offered each event that comes while the next batch is waited for, in the step that
        brings it; what it takes (True) is in no batch.
        """
        channel = Channel(ahead)
        run = Run(phases=self._arrived(), channel=channel, hosted=hosted and self._hosted is not None)
        run.task = asyncio.create_task(self._work(request, model, run))
        self._runs.add(run)
        run.task.add_done_callback(partial(self._ended, request, run))
        try:
            while batch := await run.channel.take():
                yield batch
        finally:
            await closed(run.task)

    def _ended(self, request: GenerationRequest, run: Run, task: asyncio.Task[None]) -> None:
        self._runs.discard(run)
        if task.cancelled() and run.cut is not None:
            # Cancelled before its first step, a task runs nothing of itself, so `_work` could not say
            # it: without a word here the reader would wait for ever.
            run.channel.close(run.cut)
            self._record(request, run, run.cut.code)

    async def _work(self, request: GenerationRequest, model: ServedModel | None, run: Run) -> None:
        deadline = asyncio.get_running_loop().time() + request.deadline_s
        outcome = "cancelled"
        try:
            outcome = await self._answered(request, model, deadline, run)
            run.channel.close()
        except (Exception, asyncio.CancelledError) as raised:
            if (error := told(raised, run, request)) is None:
                raise
            outcome = error.code
            run.channel.close(error)
        finally:
            self._record(request, run, outcome)

    async def _answered(
        self, request: GenerationRequest, model: ServedModel | None, deadline: float, run: Run
    ) -> str:
        """How it went with our own engine, once there is an answer: its own, or somebody else's."""
        try:
            await self._generate(request, model, deadline, run)
            return "success"
        except Exception as raised:
            error = named(raised, request)
            if isinstance(error, OutOfMemory):
                self.pressure.ran_out(error)
            if run.begun or not run.hosted or self._hosted is None:
                raise error from None
        run.elsewhere = True
        await self._hosted.answer(request, error, deadline, run.channel.put)
        return error.code

    async def _generate(
        self, request: GenerationRequest, model: ServedModel | None, deadline: float, run: Run
    ) -> None:
        engine = self._engine_for(model)
        async with self.gate.place() as turn, until(deadline, request.deadline_s):
            price = await engine.price(request)
            run.phases.priced = time.monotonic()
            try:
                hold = await turn(price)
                run.phases.turn = time.monotonic()
                await self._forward(engine, request, run, hold)
            finally:
                # Whoever was priced and never had a turn would otherwise stay known to the engine.
                engine.forget(request)

    async def _forward(self, engine: Engine, request: GenerationRequest, run: Run, hold: Hold) -> None:
        order, share, heard = EventOrder(request.n), 1 / request.n, run.phases.heard
        # Engines write `stream` as an async generator; the protocol's type can not say so.
        events = cast(AsyncGenerator[Event, None], engine.stream(request))
        async with contextlib.aclosing(events):
            async for event in events:
                order.accept(event)
                hold.tokens += share
                if isinstance(event, Delta):
                    heard(event.choice, time.monotonic())
                else:
                    run.note(event)
                if isinstance(event, Done):
                    hold.end(share * event.usage.completion_tokens)
                run.put(event)
        order.end()

    def _arrived(self) -> Phases:
        return self.metrics.arrived(self.model.id, time.monotonic())

    def _record(self, request: GenerationRequest, run: Run, outcome: str) -> None:
        self.metrics.ended(run.phases, outcome, now := time.monotonic(), run.usage, request.n)
        details = {"generation": request.id, "outcome": outcome, **run.figures(now)}
        shown = request.prompt if self._log_prompts else None
        details |= {"own_mib": self.events.reading().get("own_mib"), "prompt": shown}
        log.info("generation", extra={k: v for k, v in details.items() if v is not None})

    async def _emptied(self) -> None:
        """Let what runs finish within the drain's time, cut what does not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_s):
                await self.gate.idle()
        await self._runs.cut(NotLoaded("The model was unloaded before the answer was complete."), here=True)

    def _engine_for(self, model: ServedModel | None) -> Engine:
        """The engine, if a generation with this model would be tried now."""
        if model is not None and model != self.model:
            raise NotLoaded.of(model.id)  # another one was loaded since it was chosen
        if (refusal := self.refusal()) is not None:
            raise refusal
        assert self._held.engine is not None
        if isinstance(state := self._held.engine.state(), Ready):
            self.gate.resize(state.capacity)
        return self._held.engine
