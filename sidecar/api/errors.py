"""Every failure's HTTP answer: one table, one envelope.

`STATUS` is the only place where a SidecarError gets a status. `Refusal` is for what only HTTP
knows: a route, a method, a media type, a key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse

from sidecar import errors

MESSAGE_MAX_CHARS = 2000
INVALID = "invalid_request_error"
SERVER = "server_error"
UNAVAILABLE = "unavailable_error"


@dataclass(frozen=True, slots=True)
class Row:
    """How one class is answered. `retry` False tells OpenAI's clients not to replay."""

    status: int
    type: str
    retry: bool | None = None
    retry_after_s: float | None = None


STATUS: dict[type[errors.SidecarError], Row] = {
    errors.SidecarError: Row(500, SERVER, retry=False),
    errors.RequestError: Row(400, INVALID),
    errors.BadRequest: Row(400, INVALID),
    errors.Unsupported: Row(400, INVALID),
    errors.ContextOverflow: Row(400, INVALID),
    errors.UnknownModel: Row(404, INVALID),
    errors.Unavailable: Row(503, UNAVAILABLE, retry_after_s=5),
    errors.NotReady: Row(503, UNAVAILABLE, retry_after_s=5),
    errors.NotLoaded: Row(503, UNAVAILABLE, retry_after_s=30),
    errors.QueueFull: Row(429, "rate_limit_error", retry_after_s=1),
    errors.QueueTimeout: Row(503, UNAVAILABLE, retry_after_s=5),
    errors.MemoryPressure: Row(503, UNAVAILABLE, retry_after_s=10),
    errors.Draining: Row(503, UNAVAILABLE, retry_after_s=10),
    errors.Cut: Row(500, SERVER, retry=False),
    # The work was done once and did not fit its time: doing it again helps nobody.
    errors.DeadlineExceeded: Row(408, "timeout_error", retry=False),
    errors.ClientGone: Row(499, INVALID, retry=False),
    errors.EngineError: Row(500, SERVER, retry=False),
    errors.OutOfMemory: Row(503, SERVER, retry=False),
    errors.EngineCrashed: Row(503, SERVER, retry_after_s=2),
    errors.EngineStalled: Row(503, SERVER, retry_after_s=5),
    errors.EngineFault: Row(500, SERVER, retry=False),
    errors.ProviderBroke: Row(502, SERVER, retry_after_s=5),
    errors.StartError: Row(503, UNAVAILABLE, retry=False),
    errors.ConfigError: Row(503, UNAVAILABLE, retry=False),
    errors.WeightsMissing: Row(503, UNAVAILABLE, retry=False),
    errors.NotOnHub: Row(503, UNAVAILABLE, retry=False),
    errors.WeightsDamaged: Row(503, UNAVAILABLE, retry=False),
    errors.NoMemoryNow: Row(503, UNAVAILABLE, retry_after_s=30),
    errors.PortInUse: Row(503, UNAVAILABLE, retry=False),
    errors.NothingToSoak: Row(503, UNAVAILABLE, retry=False),
}


class Refusal(Exception):
    """A request that HTTP itself refuses, before anything is understood of it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        type: str = INVALID,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.type = type
        self.headers = dict(headers or {})


def row(error: errors.SidecarError) -> Row:
    """The most specific row for the error's class."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def envelope(error: errors.SidecarError | Refusal) -> dict[str, Any]:
    """The body that every error has, in a response and in an event stream."""
    if isinstance(error, Refusal):
        return _envelope(error.message, error.type, None, error.code)
    return _envelope(error.message, row(error).type, error.param, error.code)


def answer(error: errors.SidecarError | Refusal) -> JSONResponse:
    """The whole response for an error."""
    if isinstance(error, Refusal):
        return JSONResponse(envelope(error), error.status, headers=error.headers)
    found = row(error)
    return JSONResponse(envelope(error), found.status, headers=_retry_headers(error, found))


def _envelope(message: str, type: str, param: str | None, code: str) -> dict[str, Any]:
    text = message if len(message) <= MESSAGE_MAX_CHARS else message[:MESSAGE_MAX_CHARS] + " ..."
    return {"error": {"message": text, "type": type, "param": param, "code": code}}


def _retry_headers(error: errors.SidecarError, found: Row) -> dict[str, str]:
    headers = {}
    if found.retry is False:
        headers["x-should-retry"] = "false"
    elif found.retry_after_s is not None:
        wait_s = error.retry_after_s or found.retry_after_s
        headers["retry-after"] = str(min(60, max(1, math.ceil(wait_s))))
    return headers
