"""The load itself: clients that never stop asking, and what is looked at meanwhile.

As many clients as it takes that somebody always waits, and not many more; how many that is, the sidecar's
own count of those who wait tells. Or so many as are wanted, whoever waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from sidecar.errors import NothingToSoak, QueueFull
from sidecar.soak.asking import Asking
from sidecar.soak.clients import CANCELLED, LOST, SUCCESS, asked
from sidecar.soak.memory import Cards, Held, Tree, processor_s
from sidecar.soak.mix import Ask
from sidecar.soak.report import Tally
from sidecar.soak.server import Server

LOOK_SECONDS = 0.25
LEAST_WAITING, MOST_WAITING = 2, 8
MOST_CLIENTS = 512
"""At once. Each has a connection of its own."""
# Who is refused does not come back at once.
PAUSE_SECONDS = 0.2
FIRST_WHOLE_S = 5.0

Told = Callable[[float, Tally], None]


class Soak:
    """One load on one server. Its tally may be looked at at any time.

    `cards` where the budget is about them; None where it is about main memory. `clients` is how many ask at
    once; None: as many as keep the queue from being empty.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        server: Server,
        asks: Iterator[Ask],
        cards: Cards | None,
        clients: int | None,
    ) -> None:
        self.tally = Tally()
        self._session = session
        self._server = server
        self._asks = asks
        self._asking = Asking(session, server)
        self._tree = None if server.pid is None else Tree(server.pid)
        self._cards = cards
        self._wanted = clients
        self._clients: set[asyncio.Task[None]] = set()
        self._whole_s = FIRST_WHOLE_S
        self._surplus = 0

    async def run(self, seconds: float, stop: asyncio.Event, told: Told) -> float:
        """Drive and look until the time is over or `stop` is set; the seconds that it took.

        It ends early when the server, being ours, does.
        """
        loop = asyncio.get_running_loop()
        began, before_s = loop.time(), self._processor_s()
        try:
            while not stop.is_set() and (elapsed := loop.time() - began) < seconds:
                self._server.check()
                await self._look(elapsed)
                told(elapsed, self.tally)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(LOOK_SECONDS, seconds - elapsed)):
                        await stop.wait()
        except NothingToSoak as error:
            self.tally.over(LOST, error.message)
        finally:
            elapsed = loop.time() - began
            self.tally.unfinished = len(self._clients)
            if before_s and (after_s := self._processor_s()):
                self.tally.ran_s, self.tally.waited_s = after_s[0] - before_s[0], after_s[1] - before_s[1]
            clients = list(self._clients)
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
        return elapsed

    def _processor_s(self) -> tuple[float, float] | None:
        return None if self._server.pid is None else processor_s(self._server.pid)

    async def _look(self, elapsed: float) -> None:
        own_mib = await self._look_at_load()
        tally, at = self.tally, (elapsed, self.tally.requests)
        engine, sidecar = (self._tree and self._tree.look()) or (None, None)
        if engine is None and own_mib is not None and self._cards is None:
            engine = Held(own_mib, own_mib)  # from afar, its own word counts
        if engine is not None:
            tally.engine.append((*at, engine.now_mib))
            tally.engine_peak_mib = max(tally.engine_peak_mib or 0.0, engine.peak_mib)
        if sidecar is not None:
            tally.sidecar.append((*at, sidecar.now_mib))
            tally.sidecar_peak_mib = max(tally.sidecar_peak_mib or 0.0, sidecar.peak_mib)
        if self._cards is not None:
            seen_mib = await asyncio.to_thread(self._cards.look)
            if (used_mib := own_mib if seen_mib is None else seen_mib) is not None:
                tally.card.append((*at, used_mib))

    async def _look_at_load(self) -> float | None:
        """Note how full it is, and send more clients where nobody waits; its own figure of its memory."""
        try:
            load, own_mib = await self._asking.load()
        except (aiohttp.ClientError, ValueError):
            return None  # the probes of /health count that
        tally, waiting = self.tally, load.waiting or 0
        if self._clients:  # before there is a load, nothing is full
            tally.kv_shares += [] if load.kv_share is None else [load.kv_share]
            tally.running += [] if load.running is None else [load.running]
            tally.waiting.append(waiting)
        for _ in range(self._missing(waiting)):
            client = asyncio.create_task(self._client())
            self._clients.add(client)
            client.add_done_callback(self._clients.discard)
        # One by one: whoever has just come is not seen yet.
        self._surplus = int(self._wanted is None and waiting > MOST_WAITING)
        return own_mib

    def _missing(self, waiting: int) -> int:
        """How many clients more there should be."""
        there = len(self._clients)
        if self._wanted is not None:
            return self._wanted - there
        more = LEAST_WAITING - waiting if waiting else max(LEAST_WAITING, there // 2)
        return min(more, MOST_CLIENTS - there)

    async def _client(self) -> None:
        """Ask until it is one too many."""
        loop, kind = asyncio.get_running_loop(), SUCCESS
        while kind != QueueFull.code and not self._surplus:
            began = loop.time()
            outcome = await asked(
                self._session, self._server.url, next(self._asks), self._arrived, self._whole_s
            )
            self.tally.over(outcome.kind, outcome.message)
            kind = outcome.kind
            if kind == SUCCESS:
                self._whole_s += 0.1 * (loop.time() - began - self._whole_s)
            elif kind != CANCELLED:
                await asyncio.sleep(PAUSE_SECONDS)
        self._surplus = 0

    def _arrived(self, tokens: int) -> None:
        self.tally.tokens += tokens


@contextlib.asynccontextmanager
async def probed(url: str) -> AsyncIterator[list[float | None]]:
    """/health is asked all the while inside the block; behind it the list has every probe's ms."""
    found: list[float | None] = []
    parts = urlsplit(url)
    program = str(Path(__file__).with_name("probing.py"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", program, parts.hostname or "", str(parts.port or 80),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield found
    finally:
        said, _ = await process.communicate(b"")
        with contextlib.suppress(ValueError):  # it was ended from outside
            found += json.loads(said)
