"""One connection to llama-server: a request at a time, and the pieces of its answer.

A protocol of our own over llhttp, not a client library: every event of a stream passes here, and a
library's way from the socket to whoever reads was a tenth to a fifth of what an event costs the sidecar
(docs/benchmarks.md, `cost`).
"""

from __future__ import annotations

import asyncio
import select

import httptools

# What is read ahead of a reader who does not keep up.
MAX_AHEAD_BYTES = 256 * 1024


class ConnectionLost(Exception):
    """llama-server can not be reached, broke the connection off, or does not speak HTTP."""


class NotConnected(ConnectionLost):
    """There is nobody, so nothing was begun."""


class Connection(asyncio.Protocol):
    """See the module. `status` is the present answer's."""

    status = 0

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser
        self._waiter: asyncio.Future[None] | None = None
        self._pieces: list[bytes] = []
        self._ahead_bytes = 0
        self._paused = False
        self._whole = True
        self._stays = True
        self._lost = ""

    @classmethod
    async def open(cls, port: int, limit_s: float) -> Connection:
        """Connect to a port of loopback. Raises NotConnected; ConnectionLost where that takes too long."""
        try:
            async with asyncio.timeout(limit_s):
                _, made = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        except TimeoutError:
            raise ConnectionLost(f"no connection within {limit_s:g} s") from None
        except OSError as error:
            raise NotConnected(type(error).__name__) from error
        return made

    @property
    def reusable(self) -> bool:
        """Whether another request may follow: nothing is left of the last one and of its answer."""
        left = self._pieces or self._transport.get_write_buffer_size()
        return self._whole and self._stays and not left

    @property
    def idle(self) -> bool:
        """Whether another request may be sent: nobody closed it, heard of in the loop or not yet."""
        if self._lost or self._transport.is_closing():
            return False
        watch = select.poll()
        watch.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not watch.poll(0)

    async def ask(self, request: bytes) -> None:
        """Send a whole request and wait for the head of its answer. Raises ConnectionLost."""
        self._be_there()
        self.status, self._whole = 0, False
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(request)
        while not self.status:
            await self._more()

    async def read(self) -> bytes:
        """What came of the body since the last time; nothing at its end. Raises ConnectionLost."""
        while not self._pieces:
            if self._whole:
                return b""
            await self._more()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._ahead_bytes = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    def close(self) -> None:
        """Close it at once; whoever still reads gets ConnectionLost."""
        self._lose("closed")
        self._transport.abort()

    def _be_there(self) -> None:
        if self._lost:
            raise ConnectionLost(self._lost)

    async def _more(self) -> None:
        self._be_there()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _lose(self, why: str) -> None:
        self._lost = self._lost or why
        self._wake()

    # asyncio's side.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP's is no mere BaseTransport
        """It is open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Through the parser, which calls what stands below, to whoever reads."""
        try:
            if self._whole:
                raise httptools.HttpParserError("nobody asked")
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._lose(type(error).__name__)
            self._transport.abort()
            return
        if self._ahead_bytes > MAX_AHEAD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """Nothing more will come; a request that is still being sent would hold `connection_lost` back."""
        self._lose("closed by llama-server")

    def connection_lost(self, exc: Exception | None) -> None:
        """Over, for whatever reason."""
        self._lose(type(exc).__name__ if exc else "closed by llama-server")

    # The parser's side. What is raised here becomes its HttpParserError.

    def on_message_begin(self) -> None:
        """An answer begins; there is one to each request."""
        if self._whole:
            raise ValueError("a second answer")

    def on_headers_complete(self) -> None:
        """The head is there."""
        status = self._parser.get_status_code()
        if status < 200:
            raise ValueError("an answer before the answer, which nobody asked for")
        self.status = status

    def on_body(self, piece: bytes) -> None:
        """A piece of the body."""
        self._pieces.append(piece)
        self._ahead_bytes += len(piece)

    def on_message_complete(self) -> None:
        """The body is whole."""
        self._whole = True
        self._stays = self._parser.should_keep_alive()
