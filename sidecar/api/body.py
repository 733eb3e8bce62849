"""A request's body: bounded bytes, then strict JSON, then one object.

Nothing here echoes what was sent: an error names a position or a limit.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from sidecar.api.errors import Refusal
from sidecar.api.hints import corrected_curl
from sidecar.errors import BadRequest, ClientGone

MAX_BYTES = 1024 * 1024
# A client that is still sending would lose our answer if we closed on it, so a body that is only
# somewhat too large is read and thrown away first.
DISCARD_BYTES = 8 * MAX_BYTES
BODY_SECONDS = 30.0
MAX_DEPTH = 64
MAX_KEYS = 256


async def json_object(request: Request, deadline_s: float = BODY_SECONDS) -> dict[str, Any]:
    """The body as a JSON object, arrived within the deadline.

    Raises Refusal (408, 413, 415), BadRequest, or ClientGone.
    """
    _check_type(request)
    _check_declared_size(request)
    try:
        async with asyncio.timeout(deadline_s):
            raw = await _read(request)
    except TimeoutError:
        raise _slow(deadline_s) from None
    except ClientDisconnect:
        raise ClientGone("The client left while sending its body.") from None
    return parse(raw)


def parse(raw: bytes) -> dict[str, Any]:
    """Strict JSON: UTF-8, no duplicate keys, no NaN or infinity, no lone surrogate, depth 64."""
    if not raw.strip():
        raise BadRequest("The body is empty; a JSON object is expected.")
    try:
        from_json(raw, allow_inf_nan=False)
        value = json.loads(raw.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The body is not valid JSON: {_reason(error)}.") from None
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.")
    if len(value) > MAX_KEYS:
        raise BadRequest(f"The body has more than {MAX_KEYS} fields.")
    _check_values(value, 1)
    return value


def _check_type(request: Request) -> None:
    media, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().replace('"', "")
    if media.strip().lower() != "application/json" or charset not in (
        "",
        "charset=utf-8",
    ):
        raise _wrong_type(request, "Content-Type must be application/json.")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise _wrong_type(request, "Content-Encoding is not supported; send plain JSON.")


def _check_declared_size(request: Request) -> None:
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and len(declared) < 20:
        if int(declared) > DISCARD_BYTES:
            raise _too_large({"connection": "close"})
    elif declared:
        raise _too_large({"connection": "close"})


async def _read(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > DISCARD_BYTES:
            raise _too_large({"connection": "close"})
        if size <= MAX_BYTES:
            parts.append(part)
    if size > MAX_BYTES:
        raise _too_large({})
    return b"".join(parts)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


def _check_values(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise BadRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRequest("The body holds a number that is too large.")
    inner = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        for item in inner:
            _check_values(item, depth + 1)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    # pydantic-core's texts name a rule and a position, never the input.
    return str(error)[:120]


def _wrong_type(request: Request, problem: str) -> Refusal:
    hint = f"{problem} For example: {corrected_curl(request.scope)}"
    return Refusal(415, "unsupported_media_type", hint)


def _too_large(headers: dict[str, str]) -> Refusal:
    text = f"The body is larger than {MAX_BYTES} bytes, the most that is accepted."
    return Refusal(413, "request_too_large", text, headers=headers)


def _slow(deadline_s: float) -> Refusal:
    text = f"The body did not arrive within {deadline_s:g} s."
    close = {"connection": "close"}
    return Refusal(408, "request_timeout", text, type="timeout_error", headers=close)
