"""HTTP to one llama-server: whole answers, and streams of frames.

Questions that its HTTP threads answer by themselves (render, tokenise) take a millisecond and share a few
connections that are kept. Whatever waits for its loop has a connection of its own: behind a batch of
prompts it may wait for minutes, and nobody shall wait behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec

from sidecar.engines.llama_connection import Connection, ConnectionLost
from sidecar.engines.llama_connections import Connections
from sidecar.engines.llama_frames import error_of
from sidecar.engines.sse_frames import DONE, SseFrames
from sidecar.errors import EngineFault
from sidecar.llama_args import QUESTIONS_AT_ONCE

MAX_ERROR_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 64 * 1024 * 1024


class LlamaClient:
    """A client of `http://127.0.0.1:port`. What is wrong with a connection is always ConnectionLost."""

    def __init__(self, port: int, api_key: str) -> None:
        self._headers = f"host: 127.0.0.1:{port}\r\nauthorization: Bearer {api_key}\r\n"
        self._connections = Connections(port)
        self._turns = asyncio.Semaphore(QUESTIONS_AT_ONCE)

    def close(self) -> None:
        """Close every connection; whoever still reads one gets ConnectionLost."""
        self._connections.close()

    async def healthy(self) -> bool:
        """Whether it listens and has its model."""
        try:
            async with self._connections.kept() as connection:
                status, _ = await _answer(connection, self._request("GET", "/health"))
        except ConnectionLost:
            return False
        return status == 200

    async def pulse(self) -> None:
        """Return when its loop has answered: these figures, unlike its health, are the loop's own."""
        async with self._connections.own() as connection:
            await _answer(connection, self._request("GET", "/metrics"))

    async def get(self, path: str) -> dict[str, Any]:
        """The JSON object at `path`. Raises what the status means."""
        async with self._connections.kept() as connection:
            return _object(*await _answer(connection, self._request("GET", path)))

    async def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """What it answers to `body` without its loop, a JSON object. Raises what the status means."""
        async with self._turns, self._connections.kept() as connection:
            return _object(*await _answer(connection, self._request("POST", path, body)))

    async def compute(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """What its loop makes of `body`, a JSON object. Raises what the status means."""
        async with self._connections.own() as connection:
            return _object(*await _answer(connection, self._request("POST", path, body)))

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """An empty payload once the status is 200, then each frame's payload, until `[DONE]` or the end.

        Raises what another status means. Closing the generator closes the connection, which is how
        llama-server learns that nobody wants the rest.
        """
        # After a stream it closes the connection although it promises to keep it: of 20 requests in a
        # pool, 10 failed (measured, llama.cpp 0.7.0 and older).
        async with self._connections.taken() as connection:
            await connection.ask(self._request("POST", path, body))
            if connection.status != 200:
                raise error_of(connection.status, await _read(connection, MAX_ERROR_BYTES))
            yield b""
            frames = SseFrames()
            while data := await connection.read():
                for frame in frames.feed(data):
                    if frame == DONE:
                        return
                    yield frame

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        head = f"{method} {path} HTTP/1.1\r\n{self._headers}"
        if body is None:
            return f"{head}\r\n".encode()
        sent = msgspec.json.encode(dict(body))
        return f"{head}content-type: application/json\r\ncontent-length: {len(sent)}\r\n\r\n".encode() + sent


async def _answer(connection: Connection, request: bytes) -> tuple[int, bytes]:
    """The status, and the whole body."""
    await connection.ask(request)
    return connection.status, await _read(connection, MAX_ANSWER_BYTES)


async def _read(connection: Connection, limit_bytes: int) -> bytes:
    body = bytearray()
    while data := await connection.read():
        body += data
        if len(body) > limit_bytes:
            raise EngineFault(f"The engine's answer is larger than {limit_bytes} bytes.")
    return bytes(body)


def _object(status: int, body: bytes) -> dict[str, Any]:
    if status != 200:
        raise error_of(status, body)
    with contextlib.suppress(msgspec.MsgspecError):
        found = msgspec.json.decode(body)
        if isinstance(found, dict):
            return found
    raise EngineFault("The engine's answer is no JSON object.")
