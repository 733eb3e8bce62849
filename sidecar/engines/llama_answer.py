"""What one request gets from llama-server: its choices, each a stream of its own."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio

from sidecar.engines.llama_bodies import chat_body, completion_body, seed_of
from sidecar.engines.llama_boot import LlamaBoot
from sidecar.engines.llama_calls import CallChoice
from sidecar.engines.llama_connection import ConnectionLost, NotConnected
from sidecar.engines.llama_frames import ChatChoice, CompletionChoice
from sidecar.engines.llama_marks import Marks
from sidecar.engines.llama_prompt import Prompts
from sidecar.generation import Event, GenerationRequest, Started, Usage

LET_GO_S = 5.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that was priced: its prompt, what there is of answer, and what the answer must be."""

    ids: tuple[int, ...]
    max_tokens: int
    schema: dict[str, Any] | None = None


class Answer:
    """See the module. `room` is the context of one request."""

    def __init__(
        self, boot: LlamaBoot, prompts: Prompts, request: GenerationRequest, prepared: Prepared, room: int
    ) -> None:
        self._boot = boot
        self._prepared = prepared
        self._room = room
        given = request.sampling.seed
        self._seed = secrets.randbits(32) if given is None else given
        self._by_text = by_text(request)
        self._request, marks = prompts.broken(request) if self._by_text else (request, Marks())
        self._frames: list[ChatChoice | CompletionChoice] = [
            _form(request, marks)(index, request) for index in range(request.n)
        ]

    def events(self, at_once: int) -> AsyncGenerator[Event]:
        """Started, the events of all choices, a Finished for each. `at_once` of them are at work together."""
        return self._choice(0) if len(self._frames) == 1 else self._choices(at_once)

    async def _choice(self, index: int) -> AsyncGenerator[Event]:
        """Started, the events of one choice, Finished. Closing it ends the work in the engine."""
        frames = self._frames[index]
        payloads = self._boot.client.stream(*self._post(index))
        self._boot.open_streams += 1
        try:
            async with contextlib.aclosing(payloads):
                async for payload in payloads:
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

    async def _choices(self, at_once: int) -> AsyncGenerator[Event]:
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
            async with turns, contextlib.aclosing(self._choice(index)) as events:
                async for event in events:
                    channel.put_nowait(event)
            channel.put_nowait(None)
        except Exception as error:
            channel.put_nowait(error)

    def _post(self, index: int) -> tuple[str, dict[str, Any]]:
        seed = seed_of(self._seed, index)
        max_tokens, schema = self._prepared.max_tokens, self._prepared.schema
        if self._by_text:
            return "/v1/chat/completions", chat_body(self._request, max_tokens, seed, self._room, schema)
        ids = self._prepared.ids
        return "/completion", completion_body(self._request, ids, max_tokens, seed, self._room, schema)

    def usage(self) -> Usage:
        """The prompt once, the tokens of all choices."""
        first = self._frames[0]
        return Usage(
            first.prompt_tokens or len(self._prepared.ids),
            sum(frames.completion_tokens for frames in self._frames),
            first.cached_tokens,
        )


def by_text(request: GenerationRequest) -> bool:
    """Whether the chat route is needed, which takes text: for pictures, and where a tool may be called."""
    return bool(request.images or (request.offered and not request.must_call))


def _form(
    request: GenerationRequest, marks: Marks
) -> Callable[[int, GenerationRequest], ChatChoice | CompletionChoice]:
    if by_text(request):
        return partial(ChatChoice, marks=marks)
    return CallChoice if request.must_call else CompletionChoice
