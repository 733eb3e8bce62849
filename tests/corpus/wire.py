"""A client that sends exactly the bytes it is given, and says what came back and when."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """`status` 0: the connection was closed without an answer. `closed`: nothing came after it."""

    status: int
    headers: http.client.HTTPMessage = field(default_factory=http.client.HTTPMessage)
    body: bytes = b""
    seconds: float = 0.0
    closed: bool = False

    @property
    def error(self) -> dict[str, Any]:
        """What is in the envelope; AssertionError where there is none."""
        found = json.loads(self.body)
        assert set(found) == {"error"}, found
        assert set(found["error"]) == {"message", "type", "param", "code"}, found
        error: dict[str, Any] = found["error"]
        return error

    @property
    def events(self) -> list[str]:
        """What stands behind `data:`."""
        return [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]


def exchange(port: int, request: bytes, timeout_s: float, until_closed: bool = False) -> Answer:
    """One request on a connection of its own. TimeoutError when nothing comes."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as client:
        _send(client, request)
        answer = _answer(client, request.startswith(b"HEAD "))
        answer.seconds = time.monotonic() - began
        if until_closed and not answer.closed:
            answer.closed = _ends(client)
    return answer


def _send(client: socket.socket, request: bytes) -> None:
    # Whoever refuses early need not take the rest; what was answered is read all the same.
    with contextlib.suppress(ConnectionError):
        client.sendall(request)


def _answer(client: socket.socket, head_only: bool) -> Answer:
    response = http.client.HTTPResponse(client, method="HEAD" if head_only else "GET")
    try:
        response.begin()
    except (ConnectionError, http.client.BadStatusLine):
        return Answer(0, closed=True)
    return Answer(response.status, response.msg, response.read())


def _ends(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True
