"""No route holds the event loop for more than 100 ms: asyncio's own monitor looks at every callback."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import httpx
import pytest

from tests.contract import hostile
from tests.fakes.live import Live, live_server

# A callback that a busy machine held up is told from one that works for long by asking again.
TRIES = 3
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
ORDINARY = [
    ("GET", "/", None),
    ("GET", "/health", None),
    ("GET", "/readyz", None),
    ("GET", "/metrics", None),
    ("GET", "/v1/models", None),
    ("GET", "/openapi.json", None),
    ("GET", "/docs", None),
    ("GET", "/nope", None),
    ("POST", "/generate", {"prompt": "hi"}),
    ("POST", "/v1/completions", {"prompt": ["hi", "ho"], "n": 2, "stream": True}),
    ("POST", "/v1/chat/completions", {**CHAT, "stream": True, "logprobs": True, "top_logprobs": 20}),
    ("POST", "/v1/embeddings", {"input": ["hi"] * 256}),
]


class Slow(logging.Handler):
    """What asyncio says of callbacks that took too long."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "took" in (line := record.getMessage()):
            self.said.append(line)


@pytest.fixture(scope="module")
def monitored() -> Any:
    with live_server() as live:
        live.loop.call_soon_threadsafe(_watch, live)
        yield live


def _watch(live: Live) -> None:
    live.loop.slow_callback_duration = 0.1
    live.loop.set_debug(True)


def _said_of(live: Live, path: str, body: bytes | None, method: str = "POST") -> list[str]:
    """Nothing, if one of three times nothing was said."""
    for _ in range(TRIES):
        slow = Slow()
        logging.getLogger("asyncio").addHandler(slow)
        try:
            headers = {"content-type": "application/json"}
            httpx.request(method, live.url + path, content=body, headers=headers, timeout=30)
            httpx.get(f"{live.url}/health", timeout=30)  # behind everything that the first one left
        finally:
            logging.getLogger("asyncio").removeHandler(slow)
        if not slow.said:
            return []
    return slow.said


@pytest.mark.parametrize(("method", "path", "body"), ORDINARY, ids=[f"{m} {p}" for m, p, _ in ORDINARY])
def test_an_ordinary_request(monitored: Live, method: str, path: str, body: dict[str, Any] | None) -> None:
    assert not _said_of(monitored, path, None if body is None else json.dumps(body).encode(), method)


@pytest.mark.parametrize("name", hostile.COMPLETIONS)
def test_a_hostile_completion(monitored: Live, name: str) -> None:
    assert not _said_of(monitored, "/v1/completions", hostile.COMPLETIONS[name])


@pytest.mark.parametrize("name", hostile.CHATS)
def test_a_hostile_chat(monitored: Live, name: str) -> None:
    assert not _said_of(monitored, "/v1/chat/completions", hostile.CHATS[name])


@pytest.mark.parametrize("name", ["plain words", "one long word", "quotes", "keys"])
def test_a_hostile_prompt_of_our_own_route(monitored: Live, name: str) -> None:
    assert not _said_of(monitored, "/generate", hostile.COMPLETIONS[name])


def test_the_monitor_sees_what_blocks(monitored: Live) -> None:
    """Or none of the others could fail."""
    slow = Slow()
    logging.getLogger("asyncio").addHandler(slow)
    try:
        monitored.loop.call_soon_threadsafe(time.sleep, 0.2)  # on the loop: what must never be
        httpx.get(f"{monitored.url}/health")
    finally:
        logging.getLogger("asyncio").removeHandler(slow)
    assert slow.said
