"""HTTP to hosted providers: one answer as events, or one word for what came instead of it.

What a provider says in an error is not repeated anywhere: it may hold a part of the key, or of the prompt.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import aiohttp
import msgspec
from aiohttp.http_exceptions import HttpProcessingError

from sidecar.engines.hosted_bodies import hosted_post
from sidecar.engines.hosted_frames import TextChoice
from sidecar.engines.llama_frames import ChatChoice
from sidecar.engines.sse_frames import DONE, SseFrames
from sidecar.errors import SidecarError
from sidecar.fallback import Outcome, Provider, rest_s
from sidecar.generation import Done, Event, GenerationRequest, Started, Usage

CONNECT_SECONDS = 5.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_STATUS: dict[int, Outcome] = {401: "unauthorized", 403: "unauthorized", 429: "rate_limited"}


class NoAnswer(Exception):
    """The provider gave none, or broke it off. `rest_s` is how long it wants to be left alone."""

    def __init__(self, outcome: Outcome, rest_s: float = 0.0) -> None:
        super().__init__(outcome)
        self.outcome: Outcome = outcome
        self.rest_s = rest_s


class HostedClient:
    """A client of any provider. Opened by its first request, on the loop of that."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close every connection. Safe to call twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def events(
        self, provider: Provider, request: GenerationRequest, max_tokens: int
    ) -> AsyncGenerator[Event, None]:
        """Started with the first token, not before; then as an engine's. Raises NoAnswer.

        How long it may take is the caller's business. Token counts are the provider's, 0 where it has none.
        """
        choice = TextChoice(0, request) if isinstance(request.prompt, str) else ChatChoice(0, request)
        begun = False
        async with contextlib.aclosing(self._payloads(provider, request, max_tokens)) as payloads:
            async for payload in payloads:
                for event in _events(choice, payload):
                    if not begun:
                        yield Started(0, provider.name, provider.model)
                    begun = True
                    yield event
                if choice.over:
                    break
        if not choice.complete:
            raise NoAnswer("bad_answer")
        yield Done(Usage(choice.prompt_tokens or 0, choice.completion_tokens))

    async def _payloads(
        self, provider: Provider, request: GenerationRequest, max_tokens: int
    ) -> AsyncGenerator[bytes, None]:
        frames, size = SseFrames(), 0
        async with self._answer(provider, *hosted_post(request, provider, max_tokens)) as answer:
            async for data in answer.content.iter_any():
                size += len(data)
                if size > MAX_ANSWER_BYTES:
                    raise NoAnswer("bad_answer")
                for payload in _cut(frames, data):
                    if payload == DONE:
                        return
                    yield payload

    @contextlib.asynccontextmanager
    async def _answer(
        self, provider: Provider, path: str, body: dict[str, object]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"authorization": f"Bearer {provider.api_key}", "content-type": "application/json"}
        self._session = self._session or _session()
        outcome: Outcome = "unreachable"
        try:
            async with self._session.post(
                provider.base_url + path,
                data=msgspec.json.encode(body),
                headers=headers,
                # A redirection would carry the prompt, and with it perhaps the key, to somebody else.
                allow_redirects=False,
            ) as answer:
                if answer.status != 200:
                    raise _refused(answer)
                outcome = "broken"
                yield answer
        except (aiohttp.ClientError, HttpProcessingError, OSError):  # OSError: TimeoutError too
            raise NoAnswer(outcome) from None


def _session() -> aiohttp.ClientSession:
    # No total time: how long an answer may take is the request's own deadline.
    patience = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS)
    return aiohttp.ClientSession(
        # Rarely used: a connection that was kept would mostly be dead. Certificates are checked by default.
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"accept": "text/event-stream", "accept-encoding": "identity", "user-agent": "llm-sidecar"},
        auto_decompress=False,
        timeout=patience,
    )


def _refused(answer: aiohttp.ClientResponse) -> NoAnswer:
    """What another status than 200 means. Its body is not read."""
    if answer.status >= 500:
        return NoAnswer("server_error")
    named: Outcome = "refused" if answer.status >= 400 else "bad_answer"
    return NoAnswer(_STATUS.get(answer.status, named), rest_s(answer.headers.get("retry-after")))


def _cut(frames: SseFrames, data: bytes) -> list[bytes]:
    try:
        return frames.feed(data)
    except SidecarError:
        raise NoAnswer("bad_answer") from None


def _events(choice: ChatChoice | TextChoice, payload: bytes) -> list[Event]:
    try:
        return choice.feed(payload)
    except SidecarError:
        raise NoAnswer("bad_answer") from None
