"""500 connections that are slow on purpose: nobody else notices, and they are let go of."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from sidecar.quantiles import quantile
from tests.e2e.program import Program, until
from tests.faults.conftest import Serving
from tests.faults.probing import probing

EACH = 167  # of three kinds
SECONDS = 4.0
HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


class Slow:
    """One connection that sends a byte now and then, and reads nothing."""

    def __init__(self, own: Program, at_once: bytes, drip: bytes = b"") -> None:
        self.connection = socket.socket()
        # So that little is on its way and unread: what is not read has to wait at the server's end.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.connection.connect(("127.0.0.1", own.port))
        self.connection.sendall(at_once)
        self._drip = iter(drip)
        self.gone = False

    def turn(self) -> None:
        """Send one more byte, if the other side still wants it."""
        if not self.gone and (byte := next(self._drip, None)) is not None:
            with contextlib.suppress(BlockingIOError):
                try:
                    self.connection.send(bytes([byte]))
                except OSError:
                    self.gone = True

    def said(self) -> bytes | None:
        """What has come so far, and empty for a closed connection; None for nothing yet."""
        self.connection.setblocking(False)
        try:
            return self.connection.recv(65536)
        except BlockingIOError:
            return None
        except OSError:
            return b""


def slow_heads(own: Program) -> Iterator[Slow]:
    for _ in range(EACH):
        yield Slow(own, b"POST /generate HT", b"TP/1.1\r\nhost: localhost\r\n" + b"x-pad: y\r\n" * 1000)


def slow_bodies(own: Program) -> Iterator[Slow]:
    for _ in range(EACH):
        yield Slow(own, HEAD + b"content-length: 100000\r\n\r\n{", b" " * 100_000)


def blind_readers(own: Program) -> Iterator[Slow]:
    """Each asks for a stream of hundreds of kilobytes."""
    body: dict[str, Any] = {"prompt": "0123456789" * 250, "stream": True, "n": 4}
    data = json.dumps({**body, "prompt": " ".join([body["prompt"]] * 40)}).encode()
    for _ in range(EACH):
        yield Slow(own, HEAD + b"content-length: %d\r\n\r\n" % len(data) + data)


@pytest.fixture
def own(serving: Serving) -> Iterator[Program]:
    with serving(FAULTS_SCRIPT="slots=16", MAX_QUEUE="400") as running:
        yield running


def test_500_slow_connections_are_felt_by_nobody(own: Program) -> None:
    process = psutil.Process(own.process.pid)
    rss, fds = process.memory_info().rss, process.num_fds()
    slow = [*slow_heads(own), *slow_bodies(own)]
    with probing(own.port) as probes:
        began = time.monotonic()
        while time.monotonic() - began < SECONDS:
            for connection in slow:
                connection.turn()
            assert own.post("/generate", prompt="still here")[1] == {"generated_text": "still here "}
    readers = list(blind_readers(own))
    until(lambda: own.active() == own.waiting() == 0, "the slots are free, though nobody reads", 60)
    assert own.post("/generate", prompt="still here")[1] == {"generated_text": "still here "}
    print(f"{len(probes)} probes: p99 {quantile(probes, 0.99):.0f} ms, worst {max(probes):.0f} ms")
    print(f"{(process.memory_info().rss - rss) >> 20} MiB more")
    assert quantile(probes, 0.5) < 250
    for connection in (*slow, *readers):
        connection.connection.close()
    until(lambda: process.num_fds() <= fds, "all descriptors given back", 10)
    assert "Traceback" not in own.printed()


@pytest.mark.long
@pytest.mark.parametrize(("kind", "seconds"), [(slow_heads, 15), (slow_bodies, 35)])
def test_the_deadlines_end_them(
    own: Program, kind: Callable[[Program], Iterator[Slow]], seconds: float
) -> None:
    """10 s for a head and 30 s for a body, and 408: whoever drips gets no more time."""
    slow, began = list(kind(own)), time.monotonic()
    ended: dict[Slow, bytes] = {}
    while len(ended) < len(slow):
        assert time.monotonic() - began < seconds, f"{len(slow) - len(ended)} are still there"
        for connection in slow:
            connection.turn()
            if connection not in ended and (said := connection.said()) is not None:
                ended[connection] = said
        time.sleep(0.2)
    assert all(said.startswith(b"HTTP/1.1 408 ") for said in ended.values())
    assert own.post("/generate", prompt="still here")[0] == 200
