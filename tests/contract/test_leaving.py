"""Who closes the connection frees the place, running or queued; and whoever waits gets it at once."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.asking import CAPITAL, LONG, PARIS, Door, Refused
from tests.e2e.program import until

HOUSE = 20  # more than the 16 that run


def begin(door: Door, **body: Any) -> socket.socket:
    """A request on a socket of its own, of which nothing is read."""
    data = json.dumps(body).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", door.server.port))
    connection.sendall(head.encode() + data)
    return connection


@contextlib.contextmanager
def full_house(door: Door, **body: Any) -> Iterator[list[socket.socket]]:
    """More long requests than there are places."""
    others = [begin(door, **{**LONG, "stream": True, **body}) for _ in range(HOUSE)]
    try:
        until(lambda: door.server.active() >= 16, "a full house")
        yield others
    finally:
        for other in others:
            other.close()
        until(lambda: door.server.active() == 0, "all places free")


def test_a_closed_connection_frees_its_place(door: Door, streamed: bool) -> None:
    connection = begin(door, **LONG, stream=streamed)
    until(lambda: door.server.active() == 1, "running")
    connection.close()
    assert until(lambda: door.server.active() == 0, "its place is free", 5) < 1.0
    assert door.greedy(prompt=CAPITAL).text == f" {PARIS}"


def test_whoever_waits_and_leaves_is_forgotten(door: Door, streamed: bool) -> None:
    with full_house(door) as others:
        others.append(begin(door, **LONG, stream=streamed))
    assert door.greedy(prompt=CAPITAL).text == f" {PARIS}"


@pytest.mark.parametrize(
    "body",
    [{}, {"prompt": [5 + i % 900 for i in range(1900)], "max_tokens": 100}],
    ids=["answers", "prompts"],
)
def test_the_engine_itself_is_idle_then(door: Door, body: dict[str, Any]) -> None:
    """All places were taken by answers, or by prompts, of seconds each; the next one waits for none."""
    with full_house(door, **body):
        pass
    began = time.monotonic()
    assert door.greedy(prompt=CAPITAL).text == f" {PARIS}"
    assert time.monotonic() - began < 8.0  # one batch of a prompt; all of it would be half a minute


def test_a_deadline_in_the_queue(door: Door) -> None:
    with full_house(door):
        began = time.monotonic()
        with pytest.raises(Refused) as found:
            door.ask(prompt=CAPITAL, timeout=0.5)
        assert (found.value.status, found.value.error["code"]) == (408, "timeout")
        assert time.monotonic() - began < 5.0
    assert door.greedy(prompt=CAPITAL).text == f" {PARIS}"
