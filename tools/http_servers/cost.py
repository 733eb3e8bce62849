"""What a server costs: processor time for an event, and whole requests in a second."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

import aiohttp
import psutil

from tools.bench.servers import ROOT, Server, free_port
from tools.bench.streaming import ready, streamed
from tools.http_servers.candidate import PACED

STREAMS = (1, 8, 32)
EVENTS = 4000  # of all streams together
ASKED, CLIENTS = 400, 8


@contextlib.contextmanager
def started(name: str, *words: str) -> Iterator[Server]:
    """The candidate, when it answers."""
    port = free_port()
    command = [sys.executable, "-m", "tools.http_servers.candidate", name, str(port), *words]
    silent = subprocess.DEVNULL
    process = psutil.Popen(
        command, cwd=ROOT, stdin=silent, stdout=silent, stderr=silent, start_new_session=True
    )
    server = Server(name, name, f"http://127.0.0.1:{port}", process, time.monotonic())
    try:
        asyncio.run(ready(server))
        yield server
    finally:
        server.stop()


def event_us(server: Server, streams: int) -> float:
    """Microseconds of the server's processor for one event, the making of it included."""
    each = EVENTS // streams
    before_s = server.cpu_s()
    asyncio.run(streamed(server, f"{PACED}{streams}", streams, each))
    return (server.cpu_s() - before_s) * 1e6 / (streams * each)


def requests_per_s(server: Server) -> float:
    """Short answers, on connections that are kept."""
    began = time.monotonic()
    asyncio.run(_ask(server))
    return ASKED / (time.monotonic() - began)


async def _ask(server: Server) -> None:
    async def one(session: aiohttp.ClientSession) -> None:
        for _ in range(ASKED // CLIENTS):
            async with session.post(f"{server.url}/generate", json={"prompt": "hi"}) as answer:
                if answer.status != 200:
                    raise RuntimeError(f"{server.name}: {answer.status}")
                await answer.read()

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(one(session) for _ in range(CLIENTS)))
