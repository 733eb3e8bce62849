"""The most video memory that was in use while a load ran, where that can be seen."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiohttp

from sidecar import gpu

LOOK_SECONDS = 0.5
DEADLINE = aiohttp.ClientTimeout(total=5.0)
GAUGE = re.compile(r"^gpu_memory_used_bytes(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


@contextlib.asynccontextmanager
async def watched(session: aiohttp.ClientSession, url: str) -> AsyncIterator[Vram]:
    """Looks once before the block begins, and all the while where there is something to see."""
    vram = Vram(session, url)
    if not await vram.look():
        yield vram
        return
    task = asyncio.create_task(_watch(vram))
    try:
        yield vram
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _watch(vram: Vram) -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await vram.look()


class Vram:
    """`peak_bytes` is the most that was seen; None where nobody tells.

    The server's own `gpu_memory_used_bytes` counts (seed 001); a server that has none is taken at the word
    of the driver, if it is on this machine. Either is the use of whole cards, all of them together.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.peak_bytes: float | None = None
        self._session = session
        self._url = url
        self._is_here = urlsplit(url).hostname in THIS_MACHINE

    async def look(self) -> bool:
        """Whether something was seen."""
        used = await self._look()
        if used is not None:
            self.peak_bytes = max(self.peak_bytes or 0.0, used)
        return used is not None

    async def _look(self) -> float | None:
        said = await self._said()
        if said is not None or not self._is_here:
            return said
        seen = await asyncio.to_thread(gpu.look)
        if isinstance(seen, gpu.GpuUnreadable) or not seen:
            return None
        return float(sum(card.memory_used_bytes for card in seen))

    async def _said(self) -> float | None:
        try:
            async with self._session.get(f"{self._url}/metrics", timeout=DEADLINE) as answer:
                found = GAUGE.findall(await answer.text()) if answer.status == 200 else []
            return sum(map(float, found)) if found else None
        except (aiohttp.ClientError, OSError, ValueError):
            return None
