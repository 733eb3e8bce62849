"""The way of a stream's bytes to the socket, past routing and h11.

A chunk in the middle of an answer moves nothing in h11's state of the connection, so it needs neither.
"""

from __future__ import annotations

import asyncio

from starlette.types import Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import RequestResponseCycle

_EXTENSION = "sidecar.chunks"


class Outbox:
    """What all connections have to send at the end of one turn of the loop.

    A send wakes its reader. Where sends follow each other an event costs a seventh less, all in all, than
    where the next event is worked on between them (8 streams on two cores; docs/benchmarks.md, `cost`).
    """

    def __init__(self) -> None:
        self._chunks: dict[asyncio.Transport, list[bytes]] = {}

    def put(self, transport: asyncio.Transport, chunk: bytes) -> None:
        """Send it when the turn is over."""
        if not self._chunks:
            asyncio.get_running_loop().call_soon(self.flush)
        self._chunks.setdefault(transport, []).append(chunk)

    def flush(self) -> None:
        """Send it now. With nothing to send, harmless."""
        chunks, self._chunks = self._chunks, {}
        for transport, parts in chunks.items():
            if not transport.is_closing():
                transport.write(b"".join(parts))


class Chunks:
    """One answer of HTTP/1.1 that was begun without a length: its chunks go by the outbox.

    `wrote` is whether anything was written; whoever wants to know sets it back.
    """

    def __init__(
        self, outbox: Outbox, transport: asyncio.Transport, flow: FlowControl, cycle: RequestResponseCycle
    ) -> None:
        self.wrote = False
        self._outbox = outbox
        self._transport = transport
        self._flow = flow
        self._cycle = cycle

    def offer(self, scope: Scope) -> None:
        """Let whoever answers in this scope find it."""
        scope["extensions"] = {_EXTENSION: self}

    @property
    def open(self) -> bool:
        """Whether `put` may be called: the client is there, and takes what it is sent."""
        return not (self._flow.write_paused or self._cycle.disconnected)

    def put(self, body: bytes) -> None:
        """Write at least one byte, behind all that was written before."""
        self.wrote = True
        self._outbox.put(self._transport, b"%x\r\n%b\r\n" % (len(body), body))

    async def write(self, body: bytes) -> None:
        """Write at least one byte, once the client takes what it is sent. To one that has left, nothing."""
        if self._flow.write_paused and not self._cycle.disconnected:
            await self._flow.drain()
        if not self._cycle.disconnected:
            self.put(body)


class Messages:
    """The same by the way of every ASGI server."""

    def __init__(self, send: Send) -> None:
        self.wrote = False
        self._send = send

    async def write(self, body: bytes) -> None:
        """Write at least one byte; the server waits for the client."""
        self.wrote = True
        await self._send({"type": "http.response.body", "body": body, "more_body": True})


Way = Chunks | Messages
"""Where the bytes of one answer go."""


def way(scope: Scope, send: Send) -> Way:
    """The shortest that there is for an answer in this scope."""
    found: Chunks | None = scope.get("extensions", {}).get(_EXTENSION)
    return found or Messages(send)
