"""Clients that keep books: whatever becomes of a request, it becomes exactly one `Outcome`.

Plain sockets, so that a connection that is reset, or closed in the middle of an answer, is seen as
such: libraries repeat and repair.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["complete", "error", "left", "lost"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. With `leave_s` its client goes away after so long, whatever has come by then."""

    id: str
    path: str
    body: dict[str, Any]
    leave_s: float | None = None

    def wire(self) -> bytes:
        """Head and body; the connection is the request's own."""
        data = json.dumps(self.body).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"x-request-id: {self.id}\r\nconnection: close\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data


@dataclass(frozen=True, slots=True)
class Answer:
    """What came, whole."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request. `code` is the error's; of one that was lost, how."""

    id: str
    kind: Kind
    code: str = ""
    status: int = 0
    seconds: float = 0.0
    texts: tuple[str, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)


class Lost(Exception):
    """The connection ended before the answer did."""


async def asked(port: int, ask: Ask) -> Outcome:
    """Send it, read what comes, say what it was."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(ask.leave_s), _connection(port) as (reader, writer):
            began = time.monotonic()
            writer.write(ask.wire())
            answer = await read_answer(reader)
    except TimeoutError:
        return Outcome(ask.id, "left", seconds=time.monotonic() - began)
    except (Lost, OSError, asyncio.IncompleteReadError) as error:
        return Outcome(ask.id, "lost", f"{type(error).__name__} {error}", seconds=time.monotonic() - began)
    return judged(ask.id, answer, time.monotonic() - began)


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Head and body. Raises Lost, IncompleteReadError or OSError for anything less."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as error:
        raise Lost("no head" if not error.partial else "half a head") from None
    first, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await _body(reader, headers)
    return Answer(int(first.split()[1]), headers, body)


def judged(id: str, answer: Answer, seconds: float) -> Outcome:
    """Complete, a typed error, or (a stream without one right end) lost."""
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        kind, code, texts = _end_of_stream(answer.body)
    else:
        kind, code, texts = _end_of_json(answer)
    return Outcome(id, kind, code, answer.status, seconds, texts, answer.headers)


@contextlib.asynccontextmanager
async def _connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
        parts.append(await reader.readexactly(size))
        await _line_end(reader)
    await _line_end(reader)
    return b"".join(parts)


async def _line_end(reader: asyncio.StreamReader) -> None:
    if (found := await reader.readexactly(2)) != b"\r\n":
        raise Lost(f"{found!r} behind a chunk")


def _end_of_json(answer: Answer) -> tuple[Kind, str, tuple[str, ...]]:
    body = json.loads(answer.body)
    if answer.status != 200:
        error = body["error"]
        if set(error) != {"message", "type", "param", "code"} or not error["code"]:
            return "lost", "an error without its envelope", ()
        return "error", error["code"], ()
    if "generated_text" in body:
        return "complete", "", (body["generated_text"],)
    texts = [choice.get("text") or choice.get("message", {}).get("content") for choice in body["choices"]]
    if not all(choice["finish_reason"] for choice in body["choices"]):
        return "lost", "a 200 that is not finished", ()
    return "complete", "", tuple(texts)


def _end_of_stream(body: bytes) -> tuple[Kind, str, tuple[str, ...]]:
    """`[DONE]` if and only if each choice has its reason; otherwise one error, as the last event."""
    *events, rest = body.split(b"\n\n")
    data = [event.removeprefix(b"data: ") for event in events if not event.startswith(b":")]
    if rest or not data:
        return "lost", "a stream that merely stops", ()
    *before, last = data
    chunks = [json.loads(chunk) for chunk in before]
    if any("error" in chunk for chunk in chunks) or b"[DONE]" in before:
        return "lost", "something came behind the end", ()
    texts, finished = _together(chunks)
    if last == b"[DONE]":
        return ("complete", "", texts) if finished else ("lost", "[DONE] behind half an answer", texts)
    error = json.loads(last).get("error")
    return ("error", error["code"], texts) if error else ("lost", "a stream without an end", texts)


def _together(chunks: list[dict[str, Any]]) -> tuple[tuple[str, ...], bool]:
    texts: dict[int, str] = {}
    reasons: dict[int, str | None] = {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        index = choice["index"]
        piece = choice.get("text") or choice.get("delta", {}).get("content") or ""
        texts[index] = texts.get(index, "") + piece
        reasons[index] = choice.get("finish_reason") or reasons.get(index)
    return tuple(texts[i] for i in sorted(texts)), bool(reasons) and all(reasons.values())
