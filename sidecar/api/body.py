"""A request's body: bounded bytes, then strict JSON, then one object.

Nothing here echoes what was sent: an error names a position or a limit.
"""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
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
# A prompt may be a list of so many token ids. Nobody needs as many of what takes longer to make.
MAX_VALUES = 100_000
MAX_TEXTS = 20_000
MAX_CONTAINERS = 20_000
MAX_NUMBER_BYTES = 512

# A large body takes long enough to read to be felt by everybody else on the loop; one at a time, since
# whoever lets go of the interpreter's lock may see it go to another reader before the loop.
INLINE_BYTES = 64 * 1024
_READERS = ThreadPoolExecutor(1, thread_name_prefix="body")

_STEP = dict(zip(b"[{]}", (1, 1, -1, -1), strict=True))
_NO_BRACKETS = bytes(set(range(256)) - set(_STEP))
_NUMBERS_AS_ZEROS = bytes(ord("0") if byte in b"+-.0123456789eE" else byte for byte in range(256))
_LONG_NUMBER = b"0" * (MAX_NUMBER_BYTES + 1)


async def json_object(
    request: Request, deadline_s: float = BODY_SECONDS, max_bytes: int = MAX_BYTES
) -> dict[str, Any]:
    """The body as a JSON object of at most `max_bytes`, arrived within the deadline.

    Raises Refusal (408, 413, 415), BadRequest, or ClientGone.
    """
    _check_type(request)
    _check_declared_size(request, max_bytes)
    try:
        async with asyncio.timeout(deadline_s):
            raw = await _read(request, max_bytes)
    except TimeoutError:
        raise _slow(deadline_s) from None
    except ClientDisconnect:
        raise ClientGone("The client left while sending its body.") from None
    if len(raw) <= INLINE_BYTES:
        return parse(raw)
    return await asyncio.get_running_loop().run_in_executor(_READERS, parse, raw)


def parse(raw: bytes) -> dict[str, Any]:
    """Strict JSON: UTF-8, no duplicate keys, no NaN or infinity, no lone surrogate; bounded.

    How many values there are and how deep is known before the first of them is built: while one body
    is read, no other thread runs, and everybody else waits.
    """
    if not raw.strip():
        raise BadRequest("The body is empty; a JSON object is expected.")
    keys = _checked_shape(raw)
    try:
        value = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequest(f"The body is not valid JSON: {_reason(error)}.") from None
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.")
    if _checked_keys(value) != keys:
        raise BadRequest("The body is not valid JSON: a key appears twice in one object.")
    if len(value) > MAX_KEYS:
        raise BadRequest(f"The body has more than {MAX_KEYS} fields.")
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


def _check_declared_size(request: Request, max_bytes: int) -> None:
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and len(declared) < 20:
        if int(declared) > max(DISCARD_BYTES, max_bytes):
            raise _too_large(max_bytes, {"connection": "close"})
    elif declared:
        raise _too_large(max_bytes, {"connection": "close"})


async def _read(request: Request, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max(DISCARD_BYTES, max_bytes):
            raise _too_large(max_bytes, {"connection": "close"})
        if size <= max_bytes:
            parts.append(part)
    if size > max_bytes:
        raise _too_large(max_bytes, {})
    return b"".join(parts)


def _checked_shape(raw: bytes) -> int:
    """How many keys there are. Counts outside of texts; what is no JSON at all is found later."""
    unescaped = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    _bound(unescaped.count(b'"') // 2, MAX_TEXTS, "texts")
    # A mark in place of each text: without it, a list of one text would look like an empty one.
    bare = b'"'.join(unescaped.split(b'"')[::2]).translate(None, b" \t\r\n")
    opened, empty = bare.count(b"[") + bare.count(b"{"), bare.count(b"[]") + bare.count(b"{}")
    _bound(1 + bare.count(b",") + opened - empty, MAX_VALUES, "values")
    _bound(opened, MAX_CONTAINERS, "lists and objects")
    if max(accumulate(map(_STEP.__getitem__, bare.translate(None, _NO_BRACKETS))), default=0) > MAX_DEPTH:
        raise BadRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")
    if _LONG_NUMBER in bare.translate(_NUMBERS_AS_ZEROS):
        raise BadRequest(f"The body holds a number of more than {MAX_NUMBER_BYTES} digits.")
    return bare.count(b":")


def _bound(found: int, most: int, what: str) -> None:
    if found > most:
        raise BadRequest(f"The body holds more than {most} {what}.")


def _checked_keys(value: Any) -> int:
    """The keys of all objects in the value; one that came twice is there once. No number is infinite."""
    keys, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            keys, one = keys + len(one), list(one.values())
        kinds = set(map(type, one))  # of a hundred thousand token ids, in a millisecond
        if float in kinds and (math.inf in one or -math.inf in one):
            raise BadRequest("The body is not valid JSON: a number is too large.")
        if not kinds.isdisjoint(_CONTAINERS):
            left += [item for item in one if type(item) in _CONTAINERS]
    return keys


_CONTAINERS = frozenset({dict, list})


def _reason(error: Exception) -> str:
    # The texts name a rule and a position, never the input.
    return str(error)[:120]


def _wrong_type(request: Request, problem: str) -> Refusal:
    hint = f"{problem} For example: {corrected_curl(request.scope)}"
    return Refusal(415, "unsupported_media_type", hint)


def _too_large(max_bytes: int, headers: dict[str, str]) -> Refusal:
    text = f"The body is larger than {max_bytes} bytes, the most that is accepted."
    return Refusal(413, "request_too_large", text, headers=headers)


def _slow(deadline_s: float) -> Refusal:
    text = f"The body did not arrive within {deadline_s:g} s."
    close = {"connection": "close"}
    return Refusal(408, "request_timeout", text, type="timeout_error", headers=close)
