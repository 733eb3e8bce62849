"""A stream of events, gathered into one answer; and several streams, made one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

import anyio

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


async def collect(events: AsyncIterator[Event], choices: int) -> tuple[list[Choice], Usage]:
    """Everything, once it is complete."""
    found = [Choice() for _ in range(choices)]
    parts: list[list[str]] = [[] for _ in range(choices)]
    usage: Usage | None = None
    async for event in events:
        if isinstance(event, Delta):
            parts[event.choice].append(event.text)
            found[event.choice].logprobs.extend(event.logprobs)
            if event.tool is not None:
                found[event.choice].add(event.tool)
        elif isinstance(event, Finished):
            found[event.choice].reason = event.reason
        elif isinstance(event, Done):
            usage = event.usage
    if usage is None:
        raise EngineFault("The engine's answer ended early.")
    for choice, texts in zip(found, parts, strict=True):
        choice.text = "".join(texts)
    return found, usage


async def together(
    service: Service, model: ServedModel, requests: Sequence[GenerationRequest]
) -> AsyncGenerator[Event, None]:
    """All requests at once as one stream; choices are numbered on, as OpenAI numbers them.

    `Started` comes when every one has started; the first error ends them all.
    """
    channel: asyncio.Queue[tuple[int, Event | SidecarError]] = asyncio.Queue()
    tasks = [
        asyncio.create_task(_feed(service.stream(request, model), index, channel))
        for index, request in enumerate(requests)
    ]
    try:
        async for event in _merged(channel, requests):
            yield event
    finally:
        for task in tasks:
            task.cancel()
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await asyncio.wait(tasks)


async def _feed(
    events: AsyncGenerator[Event, None],
    index: int,
    channel: asyncio.Queue[tuple[int, Event | SidecarError]],
) -> None:
    try:
        async with contextlib.aclosing(events):
            async for event in events:
                channel.put_nowait((index, event))
    except SidecarError as error:
        channel.put_nowait((index, error))


async def _merged(
    channel: asyncio.Queue[tuple[int, Event | SidecarError]],
    requests: Sequence[GenerationRequest],
) -> AsyncIterator[Event]:
    offsets = [sum(r.n for r in requests[:i]) for i in range(len(requests))]
    held: list[Event] = []
    prompts: list[int] = []
    done: list[Usage] = []
    while len(done) < len(requests):
        index, item = await channel.get()
        if isinstance(item, SidecarError):
            raise item
        if isinstance(item, Started):
            prompts.append(item.prompt_tokens)
            if len(prompts) == len(requests):
                yield Started(sum(prompts))
                for event in held:
                    yield event
        elif isinstance(item, Done):
            done.append(item.usage)
        else:
            event = replace(item, choice=item.choice + offsets[index])
            if len(prompts) == len(requests):
                yield event
            else:
                held.append(event)
    yield Done(_sum(done))


def _sum(usages: Sequence[Usage]) -> Usage:
    return Usage(
        sum(u.prompt_tokens for u in usages),
        sum(u.completion_tokens for u in usages),
        sum(u.cached_tokens for u in usages),
    )
