"""The load: so many requests, so many at once, each timed by its own events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp
import msgspec

from sidecar.bench.events import BROKEN, Answer, refusal
from sidecar.bench.outcome import Load, Outcome, Wanted
from sidecar.bench.vram import watched

CONNECT_SECONDS, SILENT_SECONDS = 10.0, 120.0
REFUSED, UNREACHABLE, SILENT, NO_STREAM = "connection refused", "unreachable", "silent", "no stream"
LONGEST_REFUSAL_BYTES = 64 * 1024


Told = Callable[[Outcome, float], None]
"""Hears of each request that is over, and of the seconds so far."""


async def run(wanted: Wanted, told: Told) -> Load:
    """Ask until all requests are over; a request that fails is an outcome, and is not repeated."""
    headers = {} if wanted.api_key is None else {"authorization": f"Bearer {wanted.api_key}"}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    # llama-server closes a kept connection whenever it likes; whoever writes to it then has no answer.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session,
        watched(session, wanted.url) as vram,
    ):
        began, cpu_s = time.perf_counter(), time.process_time()
        outcomes = await _driven(session, wanted, lambda outcome: told(outcome, time.perf_counter() - began))
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    return Load(outcomes, seconds, cpu_s, vram.peak_bytes)


async def _driven(
    session: aiohttp.ClientSession, wanted: Wanted, over: Callable[[Outcome], None]
) -> tuple[Outcome, ...]:
    """As many at once as wanted: each client asks the next number when its answer is there."""
    numbers, outcomes = iter(range(wanted.requests)), []

    async def client() -> None:
        for number in numbers:
            outcomes.append(await asked(session, wanted, number))
            over(outcomes[-1])

    async with asyncio.TaskGroup() as group:
        for _ in range(min(wanted.concurrency, wanted.requests)):
            group.create_task(client())
    return tuple(outcomes)


async def asked(session: aiohttp.ClientSession, wanted: Wanted, number: int) -> Outcome:
    """One request and its answer, whatever becomes of it."""
    outcome, began = Outcome(), time.perf_counter()
    try:
        url = f"{wanted.url}/v1/chat/completions"
        async with session.post(url, json=wanted.body(number)) as answer:
            if answer.status != 200:
                said = await answer.content.read(LONGEST_REFUSAL_BYTES)
                outcome.error, outcome.message = refused(answer.status, said)
            elif answer.content_type != "text/event-stream":
                outcome.error, outcome.message = NO_STREAM, f"200 with {answer.content_type}"
            else:
                await _streamed(answer, outcome, began)
    except TimeoutError:
        # aiohttp's own timeouts are of this class too: of connecting, and of waiting for more.
        outcome.error, outcome.message = SILENT, f"nothing came for {SILENT_SECONDS:.0f} s"
    except aiohttp.ClientConnectorError as error:
        kind = REFUSED if isinstance(error.os_error, ConnectionRefusedError) else UNREACHABLE
        outcome.error, outcome.message = kind, f"at {error.host} port {error.port}"
    except (aiohttp.ClientError, OSError) as error:
        outcome.error, outcome.message = BROKEN, f"{type(error).__name__}: {error}"
    outcome.end_s = time.perf_counter() - began
    return outcome


async def _streamed(answer: aiohttp.ClientResponse, outcome: Outcome, began: float) -> None:
    """What arrives together has one moment."""
    stream = Answer()
    async for data in answer.content.iter_any():
        at_s = time.perf_counter() - began
        outcome.events_at_s += [at_s] * stream.feed(data)
    outcome.tokens = stream.tokens
    if stream.error is not None:
        outcome.error, outcome.message = stream.error
    elif not stream.done:
        outcome.error, outcome.message = BROKEN, "it ended without [DONE]"


def refused(status: int, body: bytes) -> tuple[str, str]:
    """Kind and message of an answer that is not 200: its status, and the code of its error if it has one."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return f"{status}", body[:200].decode(errors="replace")
    error = found.get("error") if isinstance(found, dict) else None
    if error is None:
        return f"{status}", str(found)[:200]
    code, message = refusal(error)
    return f"{status} {code}" if code != str(status) else code, message
