"""HTTP to one llama-server: whole answers, and streams of frames."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import aiohttp
import msgspec

from sidecar.engines.llama_frames import SseFrames, error_of
from sidecar.errors import EngineFault

DONE = b"[DONE]"
MAX_ERROR_BYTES = 64 * 1024
CONNECT_SECONDS = 5.0


class LlamaClient:
    """A client of `http://127.0.0.1:port`. What a broken connection raises is ConnectionLost."""

    def __init__(self, port: int, api_key: str) -> None:
        self._url = f"http://127.0.0.1:{port}"
        headers = {"authorization": f"Bearer {api_key}"}
        # No total time: how long an answer may take is the request's own deadline.
        patience = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS)
        self._session = aiohttp.ClientSession(
            headers=headers, timeout=patience, connector=aiohttp.TCPConnector(limit=0)
        )
        # llama-server closes the connection after each stream, although it promises to keep it:
        # of 20 requests in a pool, 10 failed (measured, llama.cpp 0.7.0 and older).
        self._streams = aiohttp.ClientSession(
            headers=headers, timeout=patience, connector=aiohttp.TCPConnector(limit=0, force_close=True)
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()
        await self._streams.close()

    async def healthy(self) -> bool:
        """Whether it listens and has its model."""
        try:
            async with self._session.get(f"{self._url}/health") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def get(self, path: str) -> dict[str, Any]:
        """The JSON object at `path`."""
        async with self._session.get(self._url + path) as answer:
            return _object(answer.status, await answer.read())

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that answers `body`. Raises what the status means."""
        async with self._session.post(self._url + path, data=_encoded(body), headers=_JSON) as answer:
            return _object(answer.status, await answer.read())

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """An empty payload once the status is 200, then each frame's payload, until `[DONE]` or the end.

        Raises what another status means. Closing the generator closes the connection, which is how
        llama-server learns that nobody wants the rest.
        """
        async with self._streams.post(self._url + path, data=_encoded(body), headers=_JSON) as answer:
            if answer.status != 200:
                raise error_of(answer.status, await answer.content.read(MAX_ERROR_BYTES))
            yield b""
            frames = SseFrames()
            async for data in answer.content.iter_any():
                for frame in frames.feed(data):
                    if frame == DONE:
                        return
                    yield frame


_JSON = {"content-type": "application/json"}
ConnectionLost = (aiohttp.ClientError, ConnectionError)
NotConnected = aiohttp.ClientConnectorError  # one of them: there is nobody, and nothing was begun


def _encoded(body: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(dict(body))


def _object(status: int, body: bytes) -> dict[str, Any]:
    if status != 200:
        raise error_of(status, body)
    with contextlib.suppress(msgspec.MsgspecError):
        found = msgspec.json.decode(body)
        if isinstance(found, dict):
            return found
    raise EngineFault("The engine's answer is no JSON object.")
