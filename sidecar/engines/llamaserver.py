"""The llama.cpp engine: a client of a llama-server that is started, watched and ended here.

`Supervisor` starts it, and after a death again. Each life is a `LlamaBoot`; a request belongs to the
boot that began it and gets a typed error when that one ends. A prompt that was only priced does not
notice a restart: the same model has the same tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import anyio

from sidecar import context
from sidecar.engine import EngineState, Failed, Loading, Ready
from sidecar.engines.child import restart_delay_s
from sidecar.engines.last_words import last_words, without_requests
from sidecar.engines.llama_answer import Answer, Prepared
from sidecar.engines.llama_bodies import held_schema
from sidecar.engines.llama_boot import LlamaBoot
from sidecar.engines.llama_connection import ConnectionLost, NotConnected
from sidecar.engines.llama_launch import Launch
from sidecar.engines.llama_prompt import Prompts
from sidecar.engines.llama_vectors import embeddings
from sidecar.engines.supervisor import Death, Delay, Supervisor
from sidecar.errors import EngineCrashed, EngineFault, EngineStalled, SidecarError, StartError, Unsupported
from sidecar.events import Events
from sidecar.generation import Capacity, Done, Embeddings, EngineStats, Event, GenerationRequest, Price

log = logging.getLogger(__name__)

STOP_GRACE_S = 5.0
# Its loop answers between two steps, which are a batch of prompts, a picture, or a token each.
STALL_S = {"cuda": 120.0, "cpu": 300.0}
PULSE_S = 1.0
# How long its death may take to be noticed behind a connection that broke.
LOST_S = 5.0
# What a client gives up goes on to its end there: an answer that is not streamed is not cancelled.
EMBED_AT_ONCE = 16

T = TypeVar("T")


class LlamaServerEngine:
    """An `Engine` (see `sidecar.generation`)."""

    def __init__(
        self,
        launch: Launch,
        stall_s: float | None = None,
        delay_s: Delay = restart_delay_s,
        events: Events | None = None,
    ) -> None:
        self._launch = launch
        self._stall_s = stall_s
        self._supervisor = Supervisor("llama-server", self._live, delay_s, events)
        self._boot: LlamaBoot | None = None
        self._prompts: Prompts | None = None
        self._prepared: dict[str, Prepared] = {}
        self._stats = EngineStats()
        self._room = launch.context

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
        self._boot = self._prompts = None
        self._prepared.clear()
        self._stats = EngineStats()

    def state(self) -> EngineState:
        """From memory."""
        return self._supervisor.state

    def stats(self) -> EngineStats:
        """From memory: the last look at the process."""
        return self._stats

    async def price(self, request: GenerationRequest) -> Price:
        """Have it rendered and tokenised; what was prepared waits for `stream`, or for `forget`."""
        if request.offered and request.logprobs is not None:
            raise Unsupported("`logprobs` are not supported together with `tools` here.", param="logprobs")
        schema = held_schema(request)  # it has its say before anything waits
        room = self._room
        ids = await self._asked(lambda prompts: prompts.ids(request, room))
        default = self._launch.default_max_tokens
        max_tokens = context.answer_tokens(len(ids), request.max_tokens, default, room)
        self._prepared[request.id] = Prepared(ids, max_tokens, schema)
        return Price(len(ids), max_tokens, min(request.n, self._launch.slots))

    def forget(self, request: GenerationRequest) -> None:
        """Give up a request that was priced and will not be streamed."""
        self._prepared.pop(request.id, None)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Event]:
        """See `Engine.stream`. More choices than slots take turns.

        Closing it closes the connection. The slot is free 3 to 56 ms later, or after the batch of the
        prompt that is at work (measured, 0.7.0); that is not waited for, since nothing is lost by it:
        each slot has its memory set aside, and whoever comes next waits for the slot over there.
        """
        prepared = self._prepared.pop(request.id)
        begun = False
        while not begun:
            await self._supervisor.loaded()
            boot, prompts = self._ready()
            answer = Answer(boot, prompts, request, prepared, self._room)
            try:
                async with contextlib.aclosing(answer.events(self._launch.slots)) as events:
                    async for event in events:
                        begun = True
                        yield event
            except NotConnected:
                if begun:
                    raise boot.cause from None
                await boot.gone(LOST_S)  # it died while this one waited: nobody need know
        yield Done(answer.usage())

    async def trim(self) -> float | None:
        """Nothing: all that it holds was set aside at its start."""
        return None

    async def embed(self, inputs: Sequence[str | tuple[int, ...]]) -> Embeddings:
        """One vector for each input. Raises RequestError for an input that does not fit."""
        vectors: list[tuple[float, ...]] = []
        prompt_tokens = 0
        for begin in range(0, len(inputs), EMBED_AT_ONCE):
            part = inputs[begin : begin + EMBED_AT_ONCE]
            found = await self._embedded([text if isinstance(text, str) else list(text) for text in part])
            vectors += found.vectors
            prompt_tokens += found.prompt_tokens
        return Embeddings(tuple(vectors), prompt_tokens)

    async def _embedded(self, inputs: list[str | list[int]]) -> Embeddings:
        boot, _ = self._ready()
        try:
            return embeddings(await boot.client.compute("/v1/embeddings", {"input": inputs}), len(inputs))
        except ConnectionLost:
            raise boot.cause from None

    async def _asked(self, question: Callable[[Prompts], Awaitable[T]]) -> T:
        """Ask until there is an answer: again where a connection was merely closed, then the next life."""
        for patience_s in (0.0, LOST_S, 0.0):
            boot, prompts = self._ready()
            try:
                return await question(prompts)
            except ConnectionLost:
                await boot.gone(patience_s)
            await self._supervisor.loaded()
        raise boot.cause

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
            return await self._served(boot)
        except asyncio.CancelledError:
            boot.cause = EngineCrashed("The engine was stopped.")
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await boot.close(STOP_GRACE_S)

    async def _served(self, boot: LlamaBoot) -> Death:
        why = await self._until_ready(boot)
        if isinstance(self.state(), Ready):
            watch = asyncio.create_task(self._watch(boot), name="llama-server-watch")
            try:
                await boot.child.ended()
            finally:
                watch.cancel()
            self._loading("restart", None, "")
            why = boot.cause.message if isinstance(boot.cause, EngineStalled) else ""
        return await self._died(boot, why)

    async def _until_ready(self, boot: LlamaBoot) -> str:
        """Follow it until it is ready; otherwise, what is known of the reason."""
        deadline_s = self._launch.ready_deadline_s
        try:
            async with asyncio.timeout(deadline_s):
                if not await boot.healthy():
                    return ""
                props = await boot.client.get("/props")
                self._prompts = await self._prompts_of(boot)
                self._supervisor.enter(self._ready_state(props, self._prompts))
        except TimeoutError:
            return f"it was not ready within {deadline_s:g} s (ready_deadline_s)"
        except ConnectionLost:
            return "it broke the connection off when it had hardly begun"
        except SidecarError as error:
            return f"it did not say what it serves: {error.message}"
        return ""

    async def _died(self, boot: LlamaBoot, why: str) -> Death:
        code = await boot.close(STOP_GRACE_S)
        lines = boot.child.tail().splitlines()
        if shown := without_requests(lines)[-12:]:
            log.error("the last lines of llama-server:\n%s", "\n".join(shown))
        words = last_words(lines) or boot.child.memory_words(code)
        return Death(code, "; ".join(filter(None, (why, words))))

    async def _prompts_of(self, boot: LlamaBoot) -> Prompts:
        prompts = Prompts(boot.client, self._launch.vocabulary())
        if self._launch.profile.supports_tools:
            await prompts.look_for_tools()
        return prompts

    def _ready_state(self, props: dict[str, Any], prompts: Prompts) -> Ready:
        wanted, slots = self._launch.context, self._launch.slots
        given = _context(props)
        if given < wanted:
            log.warning("llama-server gives %d tokens of context, %d were asked for", given, wanted)
        self._room = min(given, wanted)
        capacity = Capacity(slots=slots, pages=slots, page_tokens=self._room, context=self._room)
        return Ready(self._launch.device, capacity, self._about(prompts), self._launch.plan)

    def _about(self, prompts: Prompts) -> tuple[tuple[str, str], ...]:
        if prompts.has_tools:
            return self._launch.about
        return (*self._launch.about, ("tools", "none: the chat template does not show them to the model"))

    def _loading(self, phase: str, fraction: float | None, detail: str) -> None:
        self._supervisor.enter(Loading(phase, fraction, detail))

    async def _watch(self, boot: LlamaBoot) -> None:
        """Feel its pulse every second, idle or not; a loop that does not answer for long is killed."""
        limit_s = self._stall_s or STALL_S[self._launch.device.partition(":")[0]]
        while True:
            try:
                async with asyncio.timeout(limit_s):
                    await boot.client.pulse()
            except TimeoutError:
                break
            except (ConnectionLost, SidecarError):
                log.debug("no pulse from llama-server", exc_info=True)  # its end is noticed elsewhere
            else:
                look = self._launch.look(boot.child.pid)
                self._stats = replace(
                    look, running=boot.open_streams, heard_at=time.monotonic(), pid=boot.child.pid
                )
            await asyncio.sleep(min(PULSE_S, limit_s / 10))
        log.error("llama-server said nothing for %g s; killing it", limit_s)
        boot.cause = EngineStalled(f"The engine did not answer for {limit_s:g} s and is being restarted.")
        boot.child.kill()


def _context(props: dict[str, Any]) -> int:
    """The context of one slot, which is less than was asked for where the model was made for less."""
    settings = props.get("default_generation_settings")
    given = settings.get("n_ctx") if isinstance(settings, dict) else None
    if not isinstance(given, int) or given < 1:
        raise EngineFault("it does not say how large the context of a slot is.")
    return given
