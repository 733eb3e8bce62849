"""One connection: what the parser refuses, and how long it is waited for a head, a body and a reader.

uvicorn waits for all three without end, and says what it can not parse in a plain line.
"""

from __future__ import annotations

import asyncio
import http
import json
import logging
import sys
import uuid
from dataclasses import dataclass

import h11
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from sidecar.api.body import BODY_SECONDS
from sidecar.api.chunks import Chunks, Outbox
from sidecar.api.errors import Refusal, envelope

log = logging.getLogger("sidecar.http")

MAX_URL_BYTES = 8 * 1024
MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
CLOSE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Clocks:
    """How long a connection may take, in seconds.

    `head_s` from the first byte (or the connection) to the end of the headers, `body_s` from there
    to the end of the body, `write_s` in which a reader has to take what was written. A body's own
    deadline is answered by whoever reads it, a little earlier; here it is for bodies that nobody reads.
    """

    head_s: float = 10.0
    body_s: float = BODY_SECONDS + 2
    write_s: float = 60.0
    # A client that is still sending when it is refused would lose the answer if we closed on it.
    linger_s: float = 2.0


def http_config(app: ASGIApp, clocks: Clocks | None = None, close_s: int = CLOSE_SECONDS) -> uvicorn.Config:
    """How uvicorn serves. `close_s` is what connections are given at the end."""
    return uvicorn.Config(
        app,
        # One parser, one behaviour: httptools differs on malformed requests.
        http=type("Connection", (Connection,), {"clocks": clocks or Clocks(), "outbox": Outbox()}),
        h11_max_incomplete_event_size=MAX_URL_BYTES + MAX_HEADER_BYTES,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=close_s,
    )


class Connection(H11Protocol):
    """uvicorn's, with an end to every wait and one form for every refusal."""

    clocks = Clocks()
    outbox: Outbox

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """A client is there; its head is waited for."""
        super().connection_made(transport)
        self.app = self._serve
        self._refused = False
        self._awaited: object = None
        self._arrival: asyncio.TimerHandle | None = None
        self._departure: asyncio.TimerHandle | None = None
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        super().connection_lost(exc)
        _cancel(self._arrival)
        _cancel(self._departure)

    def data_received(self, data: bytes) -> None:
        """Parse it, and know what comes next. Whoever was refused is not listened to."""
        if not self._refused:
            super().data_received(data)
            self._expect()

    def on_response_complete(self) -> None:
        """The answer was written; a reader who never takes it must not keep the connection."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._must_leave_within(self.clocks.write_s)

    def timeout_keep_alive_handler(self) -> None:
        """Nobody asks anything more."""
        super().timeout_keep_alive_handler()
        self._must_leave_within(self.clocks.write_s)

    def pause_writing(self) -> None:
        """The reader does not keep up."""
        super().pause_writing()
        self._must_leave_within(self.clocks.write_s)

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        if not self.transport.is_closing() and not self._refused:
            _cancel(self._departure)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's words; ours say more
        """What can not be parsed, in the form of every error. Called while the parser's error is handled."""
        error = sys.exc_info()[1]
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        # Without the end of its first line, it is the address that is too long.
        status = 414 if status == 431 and b"\n" not in self.conn.trailing_data[0] else status
        self._refuse(status, *_REFUSALS.get(status, _REFUSALS[400]))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application, and a way for its streams that passes neither routing nor h11."""
        if scope["http_version"] == "1.1" and scope["method"] != "HEAD":
            Chunks(self.outbox, self.transport, self.flow, self.cycle).offer(scope)

        async def behind_chunks(message: Message) -> None:
            self.outbox.flush()
            await send(message)

        try:
            await self.config.loaded_app(scope, receive, behind_chunks)
        finally:
            self.outbox.flush()  # whoever closes the connection now closes it behind them

    def _expect(self) -> None:
        state = None if self._refused else self.conn.their_state
        awaited = state if state in (h11.IDLE, h11.SEND_BODY) else None
        if awaited is self._awaited:
            return
        _cancel(self._arrival)
        self._awaited = awaited
        if awaited is h11.IDLE:
            self._arrival = self.loop.call_later(self.clocks.head_s, self._head_is_late)
        elif awaited is h11.SEND_BODY:
            self._arrival = self.loop.call_later(self.clocks.body_s, self._leave, "its body did not end")

    def _head_is_late(self) -> None:
        if self.conn.trailing_data[0]:
            text = f"The request's headers did not end within {self.clocks.head_s:g} s."
            self._refuse(408, "request_timeout", text, "timeout_error")
        else:
            self._leave("it asked nothing")

    def _refuse(self, status: int, code: str, message: str, kind: str = "invalid_request_error") -> None:
        """Say it if that is still possible, then let go; what is still being sent is thrown away."""
        self._refused = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.transport.is_closing() or self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            self._must_leave_within(self.clocks.linger_s)
            return
        name = uuid.uuid4().hex
        events = _response(Refusal(status, code, message, type=kind), name)
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        log.info("request", extra={"status": status, "code": code, "request_id": name})
        self.transport.write_eof()
        self.flow.resume_reading()
        self._must_leave_within(self.clocks.linger_s)

    def _must_leave_within(self, seconds: float) -> None:
        _cancel(self._departure)
        self._departure = self.loop.call_later(seconds, self._leave, "it did not take its answer")

    def _leave(self, why: str) -> None:
        if not self._refused:
            log.info("a connection was closed: %s", why)
        self.transport.abort()


_REFUSALS = {
    400: ("bad_request", "This is no HTTP/1.1 request that can be read."),
    414: ("uri_too_long", f"The address is longer than {MAX_URL_BYTES} bytes."),
    431: (
        "headers_too_large",
        f"The headers are larger than {MAX_HEADER_BYTES} bytes, or more than {MAX_HEADERS}.",
    ),
    501: ("not_implemented", "Of transfer encodings, `chunked` alone is spoken here."),
}


def too_long(scope: Scope) -> Refusal | None:
    """The refusal of an address or of headers that are larger than any honest request's."""
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_URL_BYTES:
        return Refusal(414, *_REFUSALS[414])
    headers = scope["headers"]
    if len(headers) > MAX_HEADERS or sum(len(n) + len(v) + 4 for n, v in headers) > MAX_HEADER_BYTES:
        return Refusal(431, *_REFUSALS[431])
    return None


def _response(refusal: Refusal, request_id: str) -> list[h11.Event]:
    body = json.dumps(envelope(refusal)).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        (b"connection", b"close"),
    ]
    reason = http.HTTPStatus(refusal.status).phrase.encode()
    head = h11.Response(status_code=refusal.status, headers=headers, reason=reason)
    return [head, h11.Data(data=body), h11.EndOfMessage()]


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
