"""The front door: what every request passes before a route sees it.

In this order: request id, HTTP version, Host and Origin, size of the head, key. Plain ASGI, since Starlette's
BaseHTTPMiddleware would stand between a stream and its client.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sidecar.api.auth import OPEN_PATHS, HostCheck, KeyCheck
from sidecar.api.connection import too_long
from sidecar.api.errors import Refusal, answer
from sidecar.errors import EngineFault
from sidecar.logs import request_id

log = logging.getLogger("sidecar.http")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")


class Front:
    """Wraps the application; answers by itself whatever must not get further."""

    def __init__(self, app: ASGIApp, keys: KeyCheck, hosts: HostCheck) -> None:
        self._app = app
        self._keys = keys
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] == "http":
            scope.setdefault("state", {})["needs_key"] = self._keys.needed
            await _Visit(scope, receive, send).through(self._app, self._refusal)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refusal | None:
        headers = Headers(scope=scope)
        if scope["http_version"] not in ("1.0", "1.1"):
            return Refusal(505, "http_version", "HTTP/1.0 and HTTP/1.1 are spoken here.")
        host = headers.get("host", "")
        if host and not self._hosts.allows_host(host):
            return Refusal(403, "host_not_allowed", _HOST_TEXT)
        origin = headers.get("origin")
        if origin is not None and not self._hosts.allows_origin(origin, host):
            return Refusal(403, "origin_not_allowed", _ORIGIN_TEXT)
        if (large := too_long(scope)) is not None:
            return large
        if scope["path"] in OPEN_PATHS or self._keys.passes(_authorization(scope)):
            return None
        challenge = {"www-authenticate": "Bearer"}
        return Refusal(
            401,
            "invalid_api_key",
            _KEY_TEXT,
            type="authentication_error",
            headers=challenge,
        )


class _Visit:
    """One request on its way through."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send_on = send
        self._status: int | None = None
        self._began = time.monotonic()
        self._id = _clean_id(Headers(scope=scope).get("x-request-id"))

    async def through(self, app: ASGIApp, refusal: Callable[[Scope], Refusal | None]) -> None:
        request_id.set(self._id)
        _without_slash(self._scope)
        try:
            refused = refusal(self._scope)
            target = app if refused is None else answer(refused)
            await target(self._scope, self._receive, self._send)
        except Exception:  # logged there; no caller ever sees a traceback
            await self._failed()
        finally:
            self._log()

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            MutableHeaders(scope=message)["x-request-id"] = self._id
        await self._send_on(message)

    async def _failed(self) -> None:
        log.exception("a route failed unexpectedly")
        if self._status is None:
            text = f"The service failed unexpectedly; its log has the details under {self._id}."
            await answer(EngineFault(text))(self._scope, self._receive, self._send)

    def _log(self) -> None:
        quiet = self._scope["path"] in OPEN_PATHS or self._scope["path"] == "/metrics"
        log.log(
            logging.DEBUG if quiet else logging.INFO,
            "request",
            extra={
                "method": self._scope["method"],
                "path": self._scope["path"][:200],
                "status": self._status,
                "seconds": round(time.monotonic() - self._began, 3),
            },
        )


def _clean_id(given: str | None) -> str:
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return uuid.uuid4().hex


def _without_slash(scope: Scope) -> None:
    # Served directly: a redirect's Location would be built from the caller's own Host.
    path = scope["path"]
    if len(path) > 1 and path.endswith("/") and not path.startswith("//"):
        scope["path"] = path[:-1]
        scope["raw_path"] = scope["path"].encode()


def _authorization(scope: Scope) -> bytes:
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    return values[0] if len(values) == 1 else b""


_HOST_TEXT = (
    "This Host is not served. Use the address that the service printed at its start, or list the "
    "name in ALLOWED_HOSTS."
)
_ORIGIN_TEXT = "Web pages of this origin may not use the service. List its host name in ALLOWED_HOSTS."
_KEY_TEXT = (
    "A key is needed here: send the header `Authorization: Bearer <key>` with the API_KEY that "
    "the service was started with."
)
