"""200 clients that go away at each of five moments: their places are free within a second, all is counted."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

import psutil
import pytest

from tests.e2e.program import Program, program, until
from tests.faults.ledger import counted, scraped

LEAVERS = 200
SLOTS, QUEUE = 4, 32
WORDS = 6  # of the scripted answer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    entry = ("-m", "tests.fakes.serve_scripted")
    with program(tmp_path_factory.mktemp("leavers"), entry=entry, LOG_FORMAT="json") as own:
        until(lambda: '"message": "ready"' in own.printed(), "ready", 20)
        yield own


def begin(own: Program, script: str, whole: bool = True) -> socket.socket:
    """A streamed request on a socket of its own; without `whole`, a byte of its body is missing."""
    data = json.dumps({"prompt": script, "stream": True, "timeout": 60}).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    client = socket.create_connection(("127.0.0.1", own.port), 10)
    client.sendall(head.encode() + (data if whole else data[:-1]))
    return client


def leave(clients: list[socket.socket]) -> None:
    """Half of them close as programs do, half as those that are killed with unread data do."""
    for index, client in enumerate(clients):
        if index % 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()


def cancelled(own: Program) -> int:
    return counted(scraped(own.port)).get("cancelled", 0)


def round_of(own: Program, script: str) -> float:
    """As many as there are places come, and leave when they are where the script holds them; how long
    their places stay taken."""
    clients = [begin(own, script) for _ in range(SLOTS)]
    until(lambda: own.active() == SLOTS, "all are there", 10)
    if "Finished" in script:
        for client in clients:
            _read_until(client, b'"finish_reason":"stop"')
    leave(clients)
    return until(lambda: own.active() == own.waiting() == 0, "places free", 10)


def queue_of(own: Program, count: int) -> int:
    """So many come, wait, and leave."""
    clients = [begin(own, "queued") for _ in range(count)]
    until(lambda: own.waiting() == count, "all wait", 10)
    leave(clients)
    assert until(lambda: own.waiting() == 0, "places free", 10) < 1.0
    return count


def _read_until(client: socket.socket, mark: bytes) -> None:
    received = b""
    while mark not in received:
        part = client.recv(65536)
        assert part, received
        received += part


@pytest.mark.parametrize(
    ("moment", "script"),
    [
        ("before the first token", "[hold:0]"),
        ("in mid-stream", "[hold:3]"),
        ("after the last token", f"[hold:{WORDS + 1}] Finished"),
    ],
    ids=lambda value: value if not value.startswith("[") else "",
)
def test_who_leaves_while_it_runs(server: Program, moment: str, script: str) -> None:
    before = cancelled(server)
    for _ in range(LEAVERS // SLOTS):
        assert round_of(server, script) < 1.0, moment
    assert cancelled(server) - before == LEAVERS
    assert server.post("/generate", prompt="next")[0] == 200


def test_who_leaves_in_the_queue(server: Program) -> None:
    before, left = cancelled(server), 0
    running = [begin(server, "[hold:1]") for _ in range(SLOTS)]
    until(lambda: server.active() == SLOTS, "a full house", 10)
    while left < LEAVERS:
        left += queue_of(server, min(QUEUE, LEAVERS - left))
    assert cancelled(server) - before == LEAVERS
    leave(running)
    until(lambda: server.active() == 0, "idle", 5)


def test_who_leaves_before_the_body(server: Program) -> None:
    """Nothing was begun for them, so nothing is counted but the request itself."""
    generations, requests = server.printed().count('"generation"'), server.printed().count('"status": 499')
    for _ in range(LEAVERS // 50):
        leave([begin(server, "unsaid", whole=False) for _ in range(50)])
    until(lambda: server.printed().count('"status": 499') == requests + LEAVERS, "all noticed", 10)
    assert server.printed().count('"generation"') == generations


def test_they_leave_nothing_behind(server: Program) -> None:
    process = psutil.Process(server.process.pid)
    until(lambda: server.active() == server.waiting() == 0, "idle", 5)
    rss, fds = process.memory_info().rss, process.num_fds()
    for script in ("[hold:0]", "[hold:3]", f"[hold:{WORDS + 1}]"):
        for _ in range(LEAVERS // SLOTS // 3):
            round_of(server, script)
    with contextlib.suppress(OSError):
        leave([begin(server, "unsaid", whole=False) for _ in range(LEAVERS)])
    until(lambda: process.num_fds() <= fds, "all descriptors given back", 10)
    assert process.memory_info().rss - rss < 16 << 20
    assert "Traceback" not in server.printed()
    assert "Exception" not in server.printed()
