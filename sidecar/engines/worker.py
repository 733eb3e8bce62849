"""The transformers engine, seen from the API process: a client of `sidecar.worker`.

`Supervisor` starts the worker, and after a death again. Each life is a `Boot`; a request belongs to
the boot that began it and gets a typed error when that one ends. Requests that only wait (priced,
not begun) do not notice a restart.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

import anyio

from sidecar import context, errors
from sidecar.engine import EngineState, Failed, Loading, Ready
from sidecar.engines.child import restart_delay_s
from sidecar.engines.supervisor import Death, Delay, Supervisor
from sidecar.engines.worker_boot import Boot, Item, as_error, released
from sidecar.engines.worker_calls import CallingAnswer
from sidecar.errors import EngineCrashed, EngineStalled, SidecarError, Unsupported
from sidecar.events import Events
from sidecar.generation import (
    Delta,
    Done,
    Embeddings,
    EngineStats,
    Event,
    Finished,
    GenerationRequest,
    Price,
    Started,
)
from sidecar.worker.messages import (
    Beat,
    Begin,
    FromWorker,
    Load,
    Loaded,
    Log,
    Output,
    Priced,
    Progress,
    Refused,
    Released,
    Step,
    Trim,
    Trimmed,
    WorkerConfig,
)

log = logging.getLogger(__name__)
worker_log = logging.getLogger("sidecar.worker")

COMMAND = (sys.executable, "-m", "sidecar.worker")
STOP_GRACE_S = 5.0
# The worker's loop beats once a second between steps. No step of a working card takes a minute; on a
# CPU one step of a large model may take several, and no request lives longer than 300 s.
STALL_S = {"cuda": 60.0, "cpu": 300.0}


@dataclass(frozen=True, slots=True)
class Opened:
    """A request that a worker knows: whose, what it says of it, and what the request takes."""

    boot: Boot
    inbox: asyncio.Queue[Item]
    price: Price


class WorkerEngine:
    """An `Engine` (see `sidecar.generation`). `command` is replaced by tests with a fake worker."""

    def __init__(
        self,
        config: WorkerConfig,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = COMMAND,
        stall_s: float | None = None,
        delay_s: Delay = restart_delay_s,
        events: Events | None = None,
    ) -> None:
        self._config = config
        self._environment = environment or {}
        self._command = tuple(command)
        self._stall_s = stall_s
        self._supervisor = Supervisor("worker", self._live, delay_s, events)
        self._stats = EngineStats()
        self._boot: Boot | None = None
        self._opened: dict[str, Opened] = {}
        self._death_cause: SidecarError | None = None
        self._trim: asyncio.Future[float] | None = None

    @property
    def worker_pid(self) -> int | None:
        """The process id of the present worker."""
        return None if self._boot is None else self._boot.child.pid

    async def start(self) -> None:
        """Begin loading; returns at once."""
        self._supervisor.start()

    async def stop(self) -> None:
        """End the worker and wait until it is gone."""
        await self._supervisor.stop()

    def state(self) -> EngineState:
        """From memory."""
        return self._supervisor.state

    def stats(self) -> EngineStats:
        """From memory: the last beat."""
        return self._stats

    async def price(self, request: GenerationRequest) -> Price:
        """Have it tokenised; what was prepared waits for `stream`, or for `forget`."""
        context.check_count(len(request.token_ids), request.max_tokens, self._config.context)
        return (await self._prepare(request)).price

    def forget(self, request: GenerationRequest) -> None:
        """Give up a request that was priced and will not be streamed."""
        opened = self._opened.pop(request.id, None)
        if opened is not None:
            opened.boot.cancel(request)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Event]:
        """See `Engine.stream`."""
        opened = self._opened.get(request.id)
        if opened is None or not opened.boot.knows(request.id):  # restarted while it waited
            await self._supervisor.loaded()
            opened = await self._prepare(request)
        boot, inbox = opened.boot, opened.inbox
        calling = CallingAnswer(request) if request.offered else None
        let_go = False
        boot.send(Begin(request.id))
        try:
            yield Started(opened.price.prompt_tokens)
            while True:
                item = await inbox.get()
                if isinstance(item, Output):
                    for event in _events(item) if calling is None else calling.feed(item):
                        yield event
                    if calling is not None and calling.over and not let_go:
                        let_go = boot.cancel(request)  # its last word, the token counts, comes all the same
                elif isinstance(item, Released) and item.code is None and item.usage is not None:
                    yield Done(item.usage)
                    return
                else:
                    raise as_error(item)
        finally:
            self._opened.pop(request.id, None)
            if boot.cancel(request):
                await released(inbox)

    async def trim(self) -> float | None:
        """Of the allocator's memory, what nobody uses. Two that ask at once share the answer."""
        if self._trim is None:
            boot = self._ready_boot()
            self._trim = asyncio.get_running_loop().create_future()
            boot.send(Trim())
        return await asyncio.shield(self._trim)

    async def embed(self, inputs: Sequence[str | tuple[int, ...]]) -> Embeddings:  # noqa: ARG002 - the protocol
        """Not here: the transformers engine generates text alone."""
        raise Unsupported("This model makes no embeddings.", param="model")

    async def _prepare(self, request: GenerationRequest) -> Opened:
        while True:
            boot = self._ready_boot()
            inbox = boot.open(request)
            try:
                item = await inbox.get()
            except asyncio.CancelledError:
                boot.cancel(request)
                raise
            if isinstance(item, Priced):
                opened = self._opened[request.id] = Opened(boot, inbox, item.price)
                return opened
            if not isinstance(item, EngineCrashed | EngineStalled):
                raise as_error(item)
            await self._supervisor.loaded()  # it died before anything was begun: nobody need know

    def _ready_boot(self) -> Boot:
        if (refusal := self._supervisor.refusal()) is not None:
            raise refusal
        assert self._boot is not None
        return self._boot

    async def _live(self) -> Death:
        """From start to death of one worker."""
        boot = self._boot = await Boot.start(self._command, self._environment)
        self._death_cause = None
        stall = asyncio.create_task(self._watch_stall(boot), name="worker-stall")
        try:
            boot.send(Load(self._config))
            async for message in boot.frames():
                self._heard(boot, message)
            if not isinstance(self.state(), Failed):
                self._supervisor.enter(Loading("restart"))
            boot.fail(self._death_cause or EngineCrashed("The engine died while it worked on this request."))
            # It closed the socket, so it is ending: its own exit code is the one to know.
            code = await boot.child.stop(STOP_GRACE_S, patience_s=1.0)
            tail = boot.child.tail()
            if tail and not isinstance(self.state(), Failed):
                log.error("the worker's last words:\n%s", tail)
            return Death(code, boot.child.memory_words(code) or tail.rpartition("\n")[2])
        finally:
            stall.cancel()
            self._trimmed(0.0)
            boot.fail(EngineCrashed("The engine was stopped."))
            with anyio.CancelScope(shield=True):
                await boot.child.stop(STOP_GRACE_S)

    def _heard(self, boot: Boot, message: FromWorker) -> None:
        if isinstance(message, Beat | Step | Released):  # the loop's own words; other threads talk too
            boot.heard_at = time.monotonic()
        match message:
            case Progress(phase=phase, fraction=fraction, detail=detail):
                self._supervisor.enter(Loading(phase, fraction, detail))
            case Loaded(device=device, capacity=capacity, about=about, stats=stats, plan=plan):
                self._stats = _heard_now(stats)
                self._supervisor.enter(Ready(device, capacity, about, plan))
            case Refused(code=code, message=reason):
                kind = errors.tree().get(code)
                exit_code = kind.exit_code if kind and issubclass(kind, errors.StartError) else 70
                self._supervisor.enter(Failed(reason, exit_code))
            case Beat(stats=stats):
                self._stats = _heard_now(stats)
            case Trimmed(freed_mib=freed_mib, stats=stats):
                self._stats = _heard_now(stats)
                self._trimmed(freed_mib)
            case Log(level=level, text=text):
                worker_log.log(level, "%s", text)
            case Priced() | Step() | Released():
                boot.deliver(message)

    def _trimmed(self, freed_mib: float) -> None:
        """Tell whoever asked; a worker that ended has given back everything."""
        asked, self._trim = self._trim, None
        if asked is not None:
            asked.set_result(freed_mib)

    async def _watch_stall(self, boot: Boot) -> None:
        """A worker that says nothing while it owes an answer is killed; its death does the rest."""
        while True:
            await asyncio.sleep((self._stall_s or 10.0) / 10)
            if not isinstance(state := self.state(), Ready):
                continue
            limit_s = self._stall_s or STALL_S[state.device.partition(":")[0]]
            silent_s = time.monotonic() - boot.heard_at
            if boot.busy and silent_s > limit_s:
                log.error("the worker's loop said nothing for %d s; killing it", silent_s)
                self._death_cause = EngineStalled(
                    f"The engine did not answer for {limit_s:g} s and is being restarted."
                )
                boot.child.kill()
                return


def _heard_now(stats: EngineStats) -> EngineStats:
    return dataclasses.replace(stats, heard_at=time.monotonic())


def _events(output: Output) -> list[Event]:
    events: list[Event] = []
    if output.text or output.logprobs:
        events.append(Delta(output.choice, output.text, logprobs=output.logprobs))
    if output.finish is not None:
        events.append(Finished(output.choice, output.finish))
    return events
