"""A client that leaves: the engine's iterator is closed and the slot is free within a second."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from sidecar.gate import Gate
from sidecar.generation import Capacity
from tests.fakes.engine import ScriptedEngine
from tests.fakes.live import Live, live_server

ONE_SLOT = Capacity(slots=1, pages=1024, page_tokens=16, context=6144)
ROUTES = ["/generate", "/v1/completions", "/v1/completions stream"]


@pytest.fixture
def narrow() -> Iterator[Live]:
    with live_server(ScriptedEngine(ONE_SLOT), Gate(max_queue=2)) as server:
        yield server


def post(live: Live, route: str, prompt: str) -> socket.socket:
    path, _, stream = route.partition(" ")
    fields = {"prompt": prompt} | ({"stream": True} if stream else {})
    body = json.dumps(fields).encode()
    client = socket.create_connection(("127.0.0.1", live.port), timeout=10)
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    client.sendall(head.encode() + body)
    return client


def has_answer(client: socket.socket) -> bool:
    received = b""
    while b"Paris" not in received and (part := client.recv(4096)):
        received += part
    return b"Paris" in received


def within_a_second(live: Live, condition: Callable[[], bool]) -> bool:
    began = time.monotonic()
    return live.engine.wait_for(condition, 1.0) and time.monotonic() - began < 1.0


def slot_is_free(live: Live) -> bool:
    async def idle() -> bool:
        await live.service.gate.idle()
        return (live.service.gate.running, live.service.gate.waiting) == (0, 0)

    return bool(live.run(idle()))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("hold", [0, 3])
def test_before_the_first_token_and_in_mid_stream(narrow: Live, route: str, hold: int) -> None:
    client = post(narrow, route, f"[hold:{hold}]")
    assert narrow.engine.wait_for(lambda: bool(narrow.engine.held))
    client.close()
    assert within_a_second(narrow, lambda: not narrow.engine.open)
    assert slot_is_free(narrow)


@pytest.mark.parametrize("route", ROUTES)
def test_while_queued(narrow: Live, route: str) -> None:
    first = post(narrow, "/generate", "[hold:1] first")
    assert narrow.engine.wait_for(lambda: bool(narrow.engine.held))
    second = post(narrow, route, "second")
    narrow.run(until(lambda: narrow.service.gate.waiting == 1))
    second.close()
    narrow.run(until(lambda: narrow.service.gate.waiting == 0))
    narrow.engine.release()
    assert has_answer(first)
    first.close()
    assert slot_is_free(narrow)
    assert len(narrow.engine.requests) == 2


def test_one_that_leaves_lets_the_next_one_in(narrow: Live) -> None:
    first = post(narrow, "/v1/completions stream", "[hold:2]")
    assert narrow.engine.wait_for(lambda: bool(narrow.engine.held))
    second = post(narrow, "/generate", "second")
    first.close()
    assert has_answer(second)
    second.close()


def test_the_slot_waits_for_the_engine(narrow: Live) -> None:
    client = post(narrow, "/v1/completions stream", "[stubborn] [hold:2]")
    assert narrow.engine.wait_for(lambda: bool(narrow.engine.held))
    client.close()
    assert within_a_second(narrow, lambda: bool(narrow.engine.closing and narrow.engine.held))
    assert narrow.service.gate.running == 1
    narrow.engine.release()
    assert slot_is_free(narrow)


def test_several_prompts_all_end(narrow: Live) -> None:
    client = post(narrow, "/v1/completions stream", "unused")
    client.close()
    body = json.dumps({"prompt": ["[hold:1]", "[hold:1]"]}).encode()
    client = socket.create_connection(("127.0.0.1", narrow.port), timeout=10)
    head = f"POST /v1/completions HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    client.sendall(head.encode() + b"\r\n\r\n" + body)
    assert narrow.engine.wait_for(lambda: bool(narrow.engine.held))
    client.close()
    assert within_a_second(narrow, lambda: not narrow.engine.open)
    assert slot_is_free(narrow)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(1):
        while not condition():
            await asyncio.sleep(0.001)
