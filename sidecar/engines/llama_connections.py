"""The connections to one llama-server: which are open, and which wait for a request.

An open one holds a thread of llama-server, which looks at it a hundred times a second, so few wait and
none for long. While requests keep coming one does: to open it takes as long as a prompt takes to be
tokenised, and the first token of whoever comes next would be that much later.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from sidecar.engines.llama_connection import Connection, ConnectionLost
from sidecar.llama_args import QUESTIONS_AT_ONCE

CONNECT_SECONDS = 5.0
# llama-server closes one after five idle seconds (cpp-httplib); after a hundred answers too, but says so.
IDLE_SECONDS = 3.0


class Connections:
    """See the module. What is wrong with one is always ConnectionLost."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._busy: set[Connection] = set()
        self._idle: dict[Connection, asyncio.TimerHandle] = {}
        self._opening: asyncio.Task[None] | None = None
        self._closed = False

    def close(self) -> None:
        """Close all of them for good; whoever still reads one gets ConnectionLost."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        for timer in self._idle.values():
            timer.cancel()
        for connection in (*self._busy, *self._idle):
            connection.close()
        self._idle.clear()

    @contextlib.asynccontextmanager
    async def own(self) -> AsyncIterator[Connection]:
        """A new one, closed afterwards."""
        async with self._used(await self._new()) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[Connection]:
        """One that waited or a new one; if its answer was read to the end, it waits again."""
        async with self._used(self._waiting() or await self._new()) as connection:
            yield connection
            self._keep(connection)

    @contextlib.asynccontextmanager
    async def taken(self) -> AsyncIterator[Connection]:
        """One that waited or a new one, closed afterwards; if none is left, another is opened meanwhile."""
        async with self._used(self._waiting() or await self._new()) as connection:
            if not self._idle and self._opening is None:
                self._opening = asyncio.create_task(self._refill(), name="llama-connection")
            yield connection

    @contextlib.asynccontextmanager
    async def _used(self, connection: Connection) -> AsyncIterator[Connection]:
        self._busy.add(connection)
        try:
            yield connection
        finally:
            self._busy.discard(connection)
            if connection not in self._idle:
                connection.close()

    async def _new(self) -> Connection:
        if not self._closed:
            made = await Connection.open(self._port, CONNECT_SECONDS)
            if not self._closed:
                return made
            made.close()
        raise ConnectionLost("closed")

    def _waiting(self) -> Connection | None:
        while self._idle:
            connection, timer = self._idle.popitem()
            timer.cancel()
            if connection.idle:
                return connection
            connection.close()
        return None

    def _keep(self, connection: Connection) -> None:
        if self._closed or not connection.reusable or len(self._idle) >= QUESTIONS_AT_ONCE:
            return
        expire = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._expire, connection)
        self._idle[connection] = expire

    def _expire(self, connection: Connection) -> None:
        del self._idle[connection]
        connection.close()

    async def _refill(self) -> None:
        try:
            async with self._used(await self._new()) as connection:
                self._keep(connection)
        except ConnectionLost:
            pass  # whoever asks next hears of it
        finally:
            self._opening = None
