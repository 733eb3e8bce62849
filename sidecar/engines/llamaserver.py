"""The llama.cpp engine: a client of a llama-server that is started, watched and ended here.

`Supervisor` starts it, and after a death again. Each life is a `LlamaBoot`; a request belongs to the
boot that began it and gets a typed error when that one ends. A prompt that was only priced does not
notice a restart: the same model has the same tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import anyio

from sidecar import context
from sidecar.engines.child import restart_delay_s
from sidecar.engines.last_words import last_words
from sidecar.engines.llama_bodies import chat_body, completion_body
from sidecar.engines.llama_boot import LlamaBoot
from sidecar.engines.llama_client import ConnectionLost, NotConnected
from sidecar.engines.llama_frames import ChatChoice, CompletionChoice
from sidecar.engines.llama_launch import Launch
from sidecar.engines.llama_prompt import Prompts
from sidecar.engines.supervisor import Death, Delay, Supervisor
from sidecar.errors import EngineStalled, StartError
from sidecar.generation import (
    Capacity,
    Done,
    Embeddings,
    EngineState,
    EngineStats,
    Event,
    Failed,
    GenerationRequest,
    Loading,
    Price,
    Ready,
    Started,
    Usage,
)

log = logging.getLogger(__name__)

STOP_GRACE_S = 5.0
LET_GO_S = 5.0
# Between two frames lies one batch of a prompt or one token.
STALL_S = {"cuda": 60.0, "cpu": 300.0}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that was priced: its prompt, and what there is of answer."""

    ids: tuple[int, ...]
    max_tokens: int


class LlamaServerEngine:
    """An `Engine` (see `sidecar.generation`)."""

    def __init__(
        self, launch: Launch, stall_s: float | None = None, delay_s: Delay = restart_delay_s
    ) -> None:
        self._launch = launch
        self._stall_s = stall_s
        self._supervisor = Supervisor("llama-server", self._live, delay_s)
        self._boot: LlamaBoot | None = None
        self._prompts: Prompts | None = None
        self._prepared: dict[str, Prepared] = {}
        self._stats = EngineStats()

    @property
    def child_pid(self) -> int | None:
        """The process id of the present llama-server."""
        return None if self._boot is None else self._boot.child.pid

    async def start(self) -> None:
        """Begin loading; returns at once."""
        self._supervisor.start()

    async def stop(self) -> None:
        """End llama-server and wait until it is gone."""
        await self._supervisor.stop()
        self._stats = EngineStats()

    def state(self) -> EngineState:
        """From memory."""
        return self._supervisor.state

    def stats(self) -> EngineStats:
        """From memory: the last look at the process."""
        return self._stats

    async def price(self, request: GenerationRequest) -> Price:
        """Have it rendered and tokenised; what was prepared waits for `stream`, or for `forget`."""
        room, slots = self._launch.context, self._launch.slots
        ids = await self._asked(lambda _, prompts: prompts.ids(request, room))
        default = self._launch.default_max_tokens
        max_tokens = context.answer_tokens(len(ids), request.max_tokens, default, room)
        self._prepared[request.id] = Prepared(ids, max_tokens)
        return Price(len(ids), max_tokens, min(request.n, slots))

    def forget(self, request: GenerationRequest) -> None:
        """Give up a request that was priced and will not be streamed."""
        self._prepared.pop(request.id, None)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Event]:
        """See `Engine.stream`. More choices than slots take turns."""
        prepared = self._prepared.pop(request.id)
        begun = False
        while not begun:
            await self._supervisor.loaded()
            boot, prompts = self._ready()
            answer = _Answer(boot, prompts, request, prepared, self._launch.context)
            events = answer.choice(0) if request.n == 1 else answer.choices(self._launch.slots)
            try:
                async with contextlib.aclosing(events):
                    async for event in events:
                        begun = True
                        yield event
            except NotConnected:
                if begun:
                    raise boot.cause from None
                await boot.gone.wait()  # it died while this one waited: nobody need know
        yield Done(answer.usage())

    async def embed(self, inputs: Sequence[str | tuple[int, ...]]) -> Embeddings:
        """One vector for each input. Raises RequestError for an input that does not fit."""
        body = {"input": [text if isinstance(text, str) else list(text) for text in inputs]}
        answer = await self._asked(lambda boot, _: boot.client.post("/v1/embeddings", body))
        rows = sorted(answer["data"], key=lambda row: int(row["index"]))
        vectors = tuple(tuple(map(float, row["embedding"])) for row in rows)
        return Embeddings(vectors, int(answer["usage"]["prompt_tokens"]))

    async def _asked(self, question: Callable[[LlamaBoot, Prompts], Awaitable[T]]) -> T:
        """Ask until there is an answer: whose boot died in between asks the next one."""
        while True:
            boot, prompts = self._ready()
            try:
                return await question(boot, prompts)
            except ConnectionLost:
                await boot.gone.wait()
                await self._supervisor.loaded()

    def _ready(self) -> tuple[LlamaBoot, Prompts]:
        if (refusal := self._supervisor.refusal()) is not None:
            raise refusal
        assert self._boot is not None
        assert self._prompts is not None
        return self._boot, self._prompts

    # llama-server's life: one task, the only writer of `_boot` and `_prompts`.

    async def _live(self) -> Death:
        """From start to death of one llama-server. What only the operator can mend ends it for good."""
        try:
            command = await self._launch.prepare(self._loading)
        except StartError as error:
            self._supervisor.enter(Failed(error.message, error.exit_code))
            return Death(error.exit_code, error.message)
        self._loading("load", None, self._launch.title)
        boot = self._boot = await LlamaBoot.start(command, self._launch.environment)
        try:
            return await self._serve(boot)
        finally:
            with anyio.CancelScope(shield=True):
                await boot.close(STOP_GRACE_S)

    async def _serve(self, boot: LlamaBoot) -> Death:
        deadline_s = self._launch.ready_deadline_s
        if not await boot.healthy(deadline_s):
            return await self._died(boot, f"it was not ready within {deadline_s:g} s")
        found = await boot.client.get("/props")
        self._prompts = Prompts(boot.client, self._launch.vocabulary())
        self._supervisor.enter(self._ready_state(found))
        watch = asyncio.create_task(self._watch(boot), name="llama-server-watch")
        try:
            await boot.child.ended()
        finally:
            watch.cancel()
        self._loading("restart", None, "")
        return await self._died(boot, "")

    async def _died(self, boot: LlamaBoot, otherwise: str) -> Death:
        code = await boot.close(STOP_GRACE_S)
        lines = boot.child.tail().splitlines()
        if lines:
            log.error("the last lines of llama-server:\n%s", "\n".join(lines[-12:]))
        return Death(code, last_words(lines) or otherwise)

    def _ready_state(self, props: dict[str, Any]) -> Ready:
        wanted, slots = self._launch.context, self._launch.slots
        settings = props.get("default_generation_settings") or {}
        given = int(settings.get("n_ctx") or wanted)
        if given < wanted:
            log.warning("llama-server gives %d tokens of context, %d were asked for", given, wanted)
        room = min(given, wanted)
        capacity = Capacity(slots=slots, pages=slots, page_tokens=room, context=room)
        return Ready(self._launch.device, capacity, self._launch.about)

    def _loading(self, phase: str, fraction: float | None, detail: str) -> None:
        self._supervisor.enter(Loading(phase, fraction, detail))

    async def _watch(self, boot: LlamaBoot) -> None:
        """Look at the process every second; one that says nothing while it owes an answer is killed."""
        limit_s = self._stall_s or STALL_S[self._launch.device.partition(":")[0]]
        while True:
            self._stats = replace(
                self._launch.look(boot.child.pid), running=boot.open_streams, heard_at=time.monotonic()
            )
            silent_s = boot.silent_s()
            if silent_s > limit_s:
                log.error("llama-server said nothing for %d s; killing it", silent_s)
                boot.cause = EngineStalled(
                    f"The engine did not answer for {limit_s:g} s and is being restarted."
                )
                boot.child.kill()
                return
            await asyncio.sleep(min(1.0, limit_s / 10))


class _Answer:
    """The choices of one request, each a stream of its own."""

    def __init__(
        self, boot: LlamaBoot, prompts: Prompts, request: GenerationRequest, prepared: Prepared, room: int
    ) -> None:
        self._boot = boot
        self._prepared = prepared
        self._room = room
        given = request.sampling.seed
        self._seed = secrets.randbits(32) if given is None else given
        self._by_text = bool(request.images) or (request.tools is not None and request.tools.choice != "none")
        self._request = prompts.unmarked(request) if self._by_text else request
        form = ChatChoice if self._by_text else CompletionChoice
        self._frames: list[ChatChoice | CompletionChoice] = [form(i, request) for i in range(request.n)]

    async def choice(self, index: int) -> AsyncGenerator[Event]:
        """Started, the events of one choice, Finished. Closing it ends the work in the engine."""
        frames = self._frames[index]
        payloads = self._boot.client.stream(*self._post(index))
        self._boot.open_streams += 1
        try:
            async with contextlib.aclosing(payloads):
                async for payload in payloads:
                    self._boot.heard()
                    if not payload:
                        yield Started(len(self._prepared.ids))
                        continue
                    for event in frames.feed(payload):
                        yield event
                    if frames.over:
                        return
        except NotConnected:
            raise
        except ConnectionLost:
            raise self._boot.cause from None
        finally:
            self._boot.open_streams -= 1
        if not frames.complete:
            raise self._boot.cause

    async def choices(self, at_once: int) -> AsyncGenerator[Event]:
        """The same for all choices, `at_once` of them at a time, as one stream."""
        channel: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()
        turns = asyncio.Semaphore(at_once)
        tasks = [asyncio.create_task(self._feed(i, turns, channel)) for i in range(len(self._frames))]
        left, started = len(tasks), False
        try:
            while left:
                item = await channel.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    left -= 1
                elif not (started and isinstance(item, Started)):
                    started = True
                    yield item
        finally:
            for task in tasks:
                task.cancel()
            with anyio.move_on_after(LET_GO_S, shield=True):
                await asyncio.wait(tasks)

    async def _feed(
        self, index: int, turns: asyncio.Semaphore, channel: asyncio.Queue[Event | BaseException | None]
    ) -> None:
        try:
            async with turns, contextlib.aclosing(self.choice(index)) as events:
                async for event in events:
                    channel.put_nowait(event)
            channel.put_nowait(None)
        except Exception as error:
            channel.put_nowait(error)

    def _post(self, index: int) -> tuple[str, dict[str, Any]]:
        seed = self._seed + index
        if self._by_text:
            body = chat_body(self._request, self._prepared.max_tokens, seed, self._room)
            return "/v1/chat/completions", body
        body = completion_body(self._request, self._prepared.ids, self._prepared.max_tokens, seed, self._room)
        return "/completion", body

    def usage(self) -> Usage:
        """The prompt once, the tokens of all choices."""
        first = self._frames[0]
        return Usage(
            first.prompt_tokens or len(self._prepared.ids),
            sum(frames.completion_tokens for frames in self._frames),
            first.cached_tokens,
        )
