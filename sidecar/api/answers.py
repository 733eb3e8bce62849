"""A stream of events, gathered into one answer; and several streams, made one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

import anyio

from sidecar.channel import Channel
from sidecar.errors import EngineFault, SidecarError
from sidecar.generation import (
    Delta,
    Done,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    Started,
    TokenLogprob,
    ToolCall,
    ToolDelta,
    Usage,
)
from sidecar.run import CLOSE_SECONDS
from sidecar.service import Service
from sidecar.shelf import ServedModel

Batches = AsyncGenerator[list[Event], None]
"""Events as `Service.batches` brings them."""


@dataclass
class Choice:
    """One finished choice."""

    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reason: FinishReason = "stop"
    calls: list[ToolCall] = field(default_factory=list)

    def add(self, piece: ToolDelta) -> None:
        """Take the next piece of a tool call; a new index begins a new call."""
        if piece.index >= len(self.calls):
            self.calls.append(ToolCall(piece.id or "", piece.name or "", ""))
        call = self.calls[piece.index]
        self.calls[piece.index] = replace(call, arguments=call.arguments + piece.arguments)


@dataclass(frozen=True, slots=True)
class Whole:
    """A complete answer; `started` says who gave it."""

    started: Started
    choices: list[Choice]
    usage: Usage


async def collect(batches: AsyncIterator[Sequence[Event]], choices: int) -> Whole:
    """Everything, once it is complete."""
    found = [Choice() for _ in range(choices)]
    parts: list[list[str]] = [[] for _ in range(choices)]
    started: Started | None = None
    usage: Usage | None = None
    async for batch in batches:
        for event in batch:
            if isinstance(event, Delta):
                parts[event.choice].append(event.text)
                found[event.choice].logprobs.extend(event.logprobs)
                if event.tool is not None:
                    found[event.choice].add(event.tool)
            elif isinstance(event, Finished):
                found[event.choice].reason = event.reason
            elif isinstance(event, Done):
                usage = event.usage
            else:
                started = event
    if started is None or usage is None:
        raise EngineFault("The engine's answer ended early.")
    for choice, texts in zip(found, parts, strict=True):
        choice.text = "".join(texts)
    return Whole(started, found, usage)


async def together(service: Service, model: ServedModel, requests: Sequence[GenerationRequest]) -> Batches:
    """All requests at once as one stream; choices are numbered on, as OpenAI numbers them.

    `Started` comes when every one has started; the first error ends them all.
    """
    channel: Channel[tuple[int, Event]] = Channel()
    tasks = [
        asyncio.create_task(_feed(service.batches(request, model), index, channel))
        for index, request in enumerate(requests)
    ]
    merged = _Merged(requests)
    try:
        while not merged.done:
            if events := [event for item in await channel.take() for event in merged.accept(*item)]:
                yield events
    finally:
        for task in tasks:
            task.cancel()
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await asyncio.wait(tasks)


async def _feed(batches: Batches, index: int, channel: Channel[tuple[int, Event]]) -> None:
    try:
        async with contextlib.aclosing(batches):
            async for batch in batches:
                for event in batch:
                    channel.put((index, event))
    except SidecarError as error:
        channel.close(error)


class _Merged:
    """The events of several requests as those of one."""

    def __init__(self, requests: Sequence[GenerationRequest]) -> None:
        self._offsets = [sum(r.n for r in requests[:i]) for i in range(len(requests))]
        self._held: list[Event] = []
        self._prompts: list[int] = []
        self._usages: list[Usage] = []

    @property
    def done(self) -> bool:
        return len(self._usages) == len(self._offsets)

    def accept(self, index: int, event: Event) -> list[Event]:
        """What can be said now that request `index` said this."""
        if isinstance(event, Done):
            self._usages.append(event.usage)
            return [Done(_sum(self._usages))] if self.done else []
        if isinstance(event, Started):
            self._prompts.append(event.prompt_tokens)
        else:
            self._held.append(_numbered(event, event.choice + self._offsets[index]))
        return self._released(first=isinstance(event, Started))

    def _released(self, *, first: bool) -> list[Event]:
        if len(self._prompts) < len(self._offsets):
            return []
        held, self._held = self._held, []
        return [Started(sum(self._prompts)), *held] if first else held


def _numbered(event: Delta | Finished, choice: int) -> Delta | Finished:
    return event._replace(choice=choice) if isinstance(event, Delta) else replace(event, choice=choice)


def _sum(usages: Sequence[Usage]) -> Usage:
    return Usage(
        sum(u.prompt_tokens for u in usages),
        sum(u.completion_tokens for u in usages),
        sum(u.cached_tokens or 0 for u in usages),
    )
