"""Heads that are too large, waits without an end, and readers that never read."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import time
from collections.abc import Iterator

import pytest

from sidecar.api.connection import MAX_HEADER_BYTES, MAX_HEADERS, MAX_URL_BYTES, Clocks
from sidecar.gate import Gate
from tests.corpus.wire import Answer, exchange
from tests.fakes.live import Live, live_server

WORDS = 3000
QUICK = Clocks(head_s=0.3, body_s=0.3, write_s=0.3, linger_s=0.2)
HOST = b"Host: localhost\r\n"
POST = b"POST /generate HTTP/1.1\r\nContent-Type: application/json\r\n" + HOST


@pytest.fixture(scope="module")
def quick() -> Iterator[Live]:
    with live_server(clocks=QUICK) as server:
        yield server


def dialled(server: Live) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def rest(client: socket.socket) -> bytes:
    """What comes until the other side closes; TimeoutError when it does not."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            got += part
    return got


def one(client: socket.socket) -> int:
    """The status of the next answer, which is read to its end."""
    response = http.client.HTTPResponse(client)
    response.begin()
    response.read()
    return response.status


def get(live: Live, target: bytes, *headers: bytes) -> Answer:
    lines = b"".join(header + b"\r\n" for header in headers)
    return exchange(live.port, b"GET " + target + b" HTTP/1.1\r\n" + HOST + lines + b"\r\n", 10)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/health?" + b"a" * (MAX_URL_BYTES - 7), 200),
        (b"/health?" + b"a" * (MAX_URL_BYTES - 6), 414),
        (b"/" + b"a" * 30_000, 414),
        (b"/" + b"a" * 500_000, 414),
    ],
    ids=["fits", "one more", "one read", "endless"],
)
def test_addresses(live: Live, target: bytes, status: int) -> None:
    answer = get(live, target)
    assert answer.status == status
    assert status == 200 or answer.error["code"] == "uri_too_long"


@pytest.mark.parametrize(
    ("count", "size", "status"),
    [
        (MAX_HEADERS - 1, 10, 200),
        (MAX_HEADERS, 10, 431),
        (31, 1000, 200),
        (33, 1000, 431),
        (1, MAX_HEADER_BYTES, 431),
        (1, 500_000, 431),
        (5000, 100, 431),
    ],
)
def test_headers(live: Live, count: int, size: int, status: int) -> None:
    answer = get(live, b"/health", *[b"X-%d: " % i + b"a" * size for i in range(count)])
    assert answer.status == status
    assert status == 200 or answer.error["code"] == "headers_too_large"


def test_the_size_of_the_head_comes_before_the_key() -> None:
    with live_server(api_key="sk-test") as own:
        assert get(own, b"/v1/models").status == 401
        assert get(own, b"/v1/models", b"X-A: " + b"a" * MAX_HEADER_BYTES).status == 431


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"GET /health\r\n\r\n", 400, "bad_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "bad_request"),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad_request"),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501, "not_implemented"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "bad_request"),
    ],
    ids=["0.9", "tls", "two lengths", "gzip", "chunk"],
)  # fmt: skip
def test_what_the_parser_refuses_has_the_form_of_every_error(
    live: Live, raw: bytes, status: int, code: str
) -> None:
    answer = exchange(live.port, raw, 10, until_closed=True)
    assert (answer.status, answer.error["code"], answer.closed) == (status, code, True)
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-request-id"]


def test_an_answer_reaches_a_client_that_is_still_sending(live: Live) -> None:
    """Closing on it would reset the connection, and the answer with it."""
    with dialled(live) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nX-A: " + b"a" * 200_000)
        assert select.select([client], [], [], 10)[0]
        for _ in range(20):
            client.sendall(b"a" * 10_000)
            time.sleep(0.005)  # a reset has to have come back before the next one
        assert client.recv(4096).startswith(b"HTTP/1.1 431")


def dribbled(client: socket.socket, piece: bytes) -> bytes:
    """Send a piece every 50 ms until something comes back: that, and all that follows it."""
    began = time.monotonic()
    while time.monotonic() - began < 10:
        client.sendall(piece)
        if select.select([client], [], [], 0.05)[0]:
            return rest(client)
    raise AssertionError("it waits for ever")


def test_a_head_that_does_not_end(quick: Live) -> None:
    """Whatever dribbles in: the time is that of the whole head."""
    with dialled(quick) as client:
        client.sendall(b"GET /health HTTP/1.1\r\n")
        answer = dribbled(client, b"X-A: a\r\n")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"code": "request_timeout"' in answer


def test_a_connection_on_which_nobody_asks(quick: Live) -> None:
    with dialled(quick) as client:
        assert client.recv(4096) == b""


def test_a_second_request_is_waited_for_as_the_first(quick: Live) -> None:
    with dialled(quick) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n")
        assert one(client) == 200
        client.sendall(b"GET /livez HTTP/1.1\r\n")
        assert one(client) == 408


def test_a_body_that_nobody_reads_is_not_waited_for(quick: Live) -> None:
    """Refused for its route; what dribbles in after that would keep the connection for ever."""
    with dialled(quick) as client:
        client.sendall(b"POST /nope HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\nx")
        assert one(client) == 404
        assert dribbled(client, b"x") == b""


def test_a_body_takes_its_time_as_a_stream_does() -> None:
    """No clock runs while an answer is being made, however long that takes."""
    body = b'{"prompt": "[hold:1] hi"}'
    with live_server(clocks=QUICK) as own, dialled(own) as client:
        client.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body))
        client.sendall(body)
        assert own.engine.wait_for(lambda: bool(own.engine.held))
        client.settimeout(4 * QUICK.head_s)
        with pytest.raises(TimeoutError):
            client.recv(1)
        own.engine.release()
        client.settimeout(10)
        assert client.recv(4096).startswith(b"HTTP/1.1 200")


def long_stream(then: str = "") -> bytes:
    """More than the buffers between hold: about six megabytes."""
    text = f"{then}[say:{'wordaftera ' * WORDS}]"
    fields = {"messages": [{"role": "user", "content": text}], "stream": True, "max_tokens": WORDS}
    body = json.dumps(fields | {"logprobs": True, "top_logprobs": 20}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_a_reader_that_never_reads_gives_its_slot_back() -> None:
    with live_server(gate=Gate(4), clocks=QUICK) as own:
        with dialled(own) as client:
            client.sendall(long_stream(f"[hold:{WORDS}]"))
            assert own.engine.wait_for(lambda: bool(own.engine.held), 20)
            assert own.engine.wait_for(lambda: not own.engine.open)
        assert own.service.gate.running == 0


def test_a_reader_that_reads_gets_it_all(quick: Live) -> None:
    with dialled(quick) as client:
        client.sendall(long_stream())
        got = b""
        while not got.endswith(b"0\r\n\r\n") and (part := client.recv(65_536)):
            got += part
    assert got.count(b"data: ") > WORDS
    assert b"[DONE]" in got
