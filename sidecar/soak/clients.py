"""One request over HTTP, and what became of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from sidecar.soak.mix import Ask

COMPLETED = re.compile(rb'"completion_tokens":\s*(\d+)')
DONE = b"data: [DONE]\n\n"
TAIL_BYTES = 4096
CANCELLED, SUCCESS, LOST = "cancelled", "success", "lost"

OnTokens = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`kind` is success, cancelled (its client left), lost (the connection broke), or an error's code."""

    kind: str
    message: str = ""


async def asked(
    session: aiohttp.ClientSession, url: str, ask: Ask, on_tokens: OnTokens, whole_s: float
) -> Outcome:
    """Send it and take what comes; `on_tokens` hears of tokens as they arrive.

    Whoever takes the answer whole can not see how far it is, so a client that leaves does so by the
    clock: after its share of `whole_s`, waiting included.
    """
    leave_s = None if ask.streamed or ask.leaves_at is None else ask.leaves_at * whole_s
    try:
        async with (
            asyncio.timeout(leave_s),
            session.post(f"{url}/v1/completions", json=ask.body()) as answer,
        ):
            if answer.status != 200:
                return _refused(await answer.read())
            if ask.streamed:
                return await _stream(answer, ask, on_tokens)
            on_tokens(_completed(await answer.read()))
            return Outcome(SUCCESS)
    except TimeoutError:
        return Outcome(CANCELLED)
    except (aiohttp.ClientError, OSError) as error:
        return Outcome(LOST, f"{type(error).__name__}: {error}")


async def _stream(answer: aiohttp.ClientResponse, ask: Ask, on_tokens: OnTokens) -> Outcome:
    """An event is a token, until the end tells their number."""
    leaves_at = None if ask.leaves_at is None else ask.leaves_at * ask.max_tokens
    events, tail = 0, b""
    async for chunk in answer.content.iter_any():
        come = chunk.count(b"\n\n")
        events += come
        on_tokens(come)
        tail = (tail + chunk)[-TAIL_BYTES:]
        if leaves_at is not None and events >= leaves_at:
            answer.close()
            return Outcome(CANCELLED)
    if not tail.endswith(DONE):
        return _refused(tail.rstrip().rpartition(b"data: ")[2])
    on_tokens(_completed(tail) - events)
    return Outcome(SUCCESS)


def _completed(body: bytes) -> int:
    found = COMPLETED.findall(body)
    return int(found[-1]) if found else 0


def _refused(body: bytes) -> Outcome:
    """An error in its envelope; anything else is an answer that was lost."""
    try:
        error: dict[str, Any] = json.loads(body)["error"]
        return Outcome(str(error["code"] or error["type"]), str(error["message"]))
    except (ValueError, LookupError, TypeError):
        return Outcome(LOST, "the answer was no error of ours, and not complete")
