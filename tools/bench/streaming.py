"""Streams of events that are read as fast as they come, and counted."""

from __future__ import annotations

import asyncio
import contextlib
import time

import aiohttp

from tools.bench.servers import Server


async def streamed(server: Server, prompt: str, streams: int, events: int) -> None:
    """So many streams at once, so many events each. RuntimeError when one brings fewer."""
    body = {"prompt": prompt, "max_tokens": events, "stream": True, "timeout": 300}
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        counts = await asyncio.gather(*(_count(session, server, body) for _ in range(streams)))
    if min(counts) < events:
        raise RuntimeError(f"{server.name} brought {min(counts)} of {events} events")


async def first_event_s(url: str, body: dict[str, object]) -> float:
    """Seconds from a request on a new connection to its first event. RuntimeError when none comes."""
    began = time.monotonic()
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        async for line in answer.content:
            if line.startswith(b"data: {"):
                return time.monotonic() - began
    raise RuntimeError(f"{url} brought no event")


async def ready(server: Server) -> None:
    """Wait until it would answer. RuntimeError when it ends instead."""
    async with aiohttp.ClientSession() as session:
        while server.process.poll() is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{server.url}/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)
    raise RuntimeError(f"{server.name} ended before it answered; its log, if it has one, is in build/bench")


async def _count(session: aiohttp.ClientSession, server: Server, body: dict[str, object]) -> int:
    async with session.post(f"{server.url}/v1/completions", json=body) as answer:
        return (await answer.read()).count(b"data: {")
