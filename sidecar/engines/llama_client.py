"""HTTP to one llama-server: whole answers, and streams of frames.

Questions that its HTTP threads answer by themselves (render, tokenise) take a millisecond and share a few
connections that are kept. Whatever waits for its loop has a connection of its own: behind a batch of
prompts it may wait for minutes, and nobody shall wait behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import aiohttp
import msgspec
from aiohttp.http_exceptions import HttpProcessingError

from sidecar.engines.llama_frames import error_of
from sidecar.engines.sse_frames import SseFrames
from sidecar.errors import EngineFault
from sidecar.llama_args import QUESTIONS_AT_ONCE

DONE = b"[DONE]"
MAX_ERROR_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 64 * 1024 * 1024
CONNECT_SECONDS = 5.0
IDLE_SECONDS = 3.0
_JSON = {"content-type": "application/json"}


class ConnectionLost(Exception):
    """llama-server can not be reached, broke the connection off, or does not speak HTTP."""


class NotConnected(ConnectionLost):
    """There is nobody, so nothing was begun."""


class LlamaClient:
    """A client of `http://127.0.0.1:port`. What is wrong with a connection is always ConnectionLost."""

    def __init__(self, port: int, api_key: str) -> None:
        self._url = f"http://127.0.0.1:{port}"
        # llama-server closes a connection after five idle seconds; after a hundred answers too, but says so.
        # Until then each holds one of its threads, which looks at it a hundred times a second.
        self._kept = _session(api_key, aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS))
        # Not the connector's own limit: when it closes, it cancels the tasks that wait for a connection.
        self._turns = asyncio.Semaphore(QUESTIONS_AT_ONCE)
        # After a stream it closes it although it promises to keep it: of 20 requests in a pool, 10 failed
        # (measured, llama.cpp 0.7.0 and older).
        self._once = _session(api_key, aiohttp.TCPConnector(limit=0, force_close=True))
        self._open: set[aiohttp.ClientResponse] = set()

    async def close(self) -> None:
        """Close every connection; whoever still reads one gets ConnectionLost."""
        for answer in tuple(self._open):
            answer.close()  # the session would leave its reader waiting
        await self._kept.close()
        await self._once.close()

    async def healthy(self) -> bool:
        """Whether it listens and has its model."""
        try:
            async with self._answer(self._kept, "GET", "/health") as answer:
                return answer.status == 200
        except ConnectionLost:
            return False

    async def pulse(self) -> None:
        """Return when its loop has answered: these figures, unlike its health, are the loop's own."""
        async with self._answer(self._once, "GET", "/metrics") as answer:
            await _read(answer, MAX_ANSWER_BYTES)

    async def get(self, path: str) -> dict[str, Any]:
        """The JSON object at `path`. Raises what the status means."""
        async with self._answer(self._kept, "GET", path) as answer:
            return _object(answer.status, await _read(answer, MAX_ANSWER_BYTES))

    async def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """What it answers to `body` without its loop, a JSON object. Raises what the status means."""
        async with self._turns, self._answer(self._kept, "POST", path, body) as answer:
            return _object(answer.status, await _read(answer, MAX_ANSWER_BYTES))

    async def compute(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """What its loop makes of `body`, a JSON object. Raises what the status means."""
        async with self._answer(self._once, "POST", path, body) as answer:
            return _object(answer.status, await _read(answer, MAX_ANSWER_BYTES))

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """An empty payload once the status is 200, then each frame's payload, until `[DONE]` or the end.

        Raises what another status means. Closing the generator closes the connection, which is how
        llama-server learns that nobody wants the rest.
        """
        async with self._answer(self._once, "POST", path, body) as answer:
            if answer.status != 200:
                raise error_of(answer.status, await _read(answer, MAX_ERROR_BYTES))
            yield b""
            frames = SseFrames()
            while data := await answer.content.readany():
                for frame in frames.feed(data):
                    if frame == DONE:
                        return
                    yield frame

    @contextlib.asynccontextmanager
    async def _answer(
        self, session: aiohttp.ClientSession, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if session.closed:
            raise ConnectionLost("closed")
        sent: dict[str, Any] = (
            {} if body is None else {"data": msgspec.json.encode(dict(body)), "headers": _JSON}
        )
        try:
            async with session.request(method, self._url + path, **sent) as answer:
                self._open.add(answer)
                try:
                    yield answer
                finally:
                    self._open.discard(answer)
        except aiohttp.ClientConnectorError as error:
            raise NotConnected(type(error).__name__) from error
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:  # OSError: TimeoutError too
            raise ConnectionLost(type(error).__name__) from error


def _session(api_key: str, connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    # No total time: how long an answer may take is the request's own deadline.
    patience = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS)
    headers = {"authorization": f"Bearer {api_key}"}
    return aiohttp.ClientSession(headers=headers, timeout=patience, connector=connector)


async def _read(answer: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    body = bytearray()
    async for data in answer.content.iter_any():
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
