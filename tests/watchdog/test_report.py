"""The sidecar's report: exactly one line of sense, in time, or none at all."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.asks import Ask
from watchdog.observation import Drain, Report
from watchdog.report import Answer, ask, ask_for, parse, parse_answer

SAID: dict[str, Any] = {
    "boot_id": "b1",
    "phase": "ready",
    "own_mib": 6500.5,
    "age_s": 0.4,
    "running": 2,
    "waiting": 1,
    "last_drain": {"boot_id": "b0", "finished": 2, "cut": 0},
}
LINE = json.dumps(SAID).encode() + b"\n"
REPORT = Report("b1", "ready", 6500.5, 0.4, 2, 1, Drain("b0", 2, 0))


@contextmanager
def sidecar(
    path: Path, serve: Callable[[socket.socket], None], asked: list[bytes] | None = None
) -> Iterator[str]:
    """Answers each question with `serve`, and keeps what was asked."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(8)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    question = connection.recv(1024)
                    if asked is not None:
                        asked.append(question)
                    serve(connection)
                except OSError:
                    continue

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield str(path)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_asked_and_told(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(LINE[:20])
        connection.sendall(LINE[20:])

    with sidecar(tmp_path / "s", serve, asked) as path:
        assert ask(path) == REPORT
    assert asked == [b'{"ask": "report"}\n']


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\n",
        b"{}\n",
        b"null\n",
        b"[]\n",
        b"7\n",
        LINE[:-5],
        LINE[5:],
        b"\xff\xfe\n",
        b"[" * 20000 + b"\n",
        b"x" * 70000 + b"\n",
        LINE.replace(b"6500.5", b"NaN"),
        LINE.replace(b"6500.5", b"-1"),
        LINE.replace(b"6500.5", b"1e999"),
        LINE.replace(b"6500.5", b'"6500"'),
        LINE.replace(b"6500.5", b"true"),
        LINE.replace(b'"running": 2', b'"running": 2.5'),
        LINE.replace(b'"b1"', b'""'),
        LINE.replace(b'"b1"', b'"a\\nb"'),
        LINE.replace(b'"b1"', b"7"),
        LINE.replace(b'"b1"', b'"' + b"x" * 200 + b'"'),
        LINE.replace(b'"cut": 0', b'"cut": -1'),
        LINE.replace(b'{"boot_id": "b0"', b'{"boot": "b0"'),
    ],
)
def test_whatever_is_odd_is_no_report(tmp_path: Path, answer: bytes) -> None:
    with sidecar(tmp_path / "s", lambda connection: connection.sendall(answer)) as path:
        assert ask(path) is None


def test_null_is_not_known() -> None:
    said = SAID | {"own_mib": None, "age_s": None, "last_drain": None}
    assert parse(json.dumps(said).encode()) == Report("b1", "ready", None, None, 2, 1, None)


def test_more_than_was_agreed_on_does_no_harm() -> None:
    assert parse(json.dumps(SAID | {"new": [1]}).encode()) == REPORT


def test_a_newer_sidecar_says_what_it_takes() -> None:
    said = SAID | {"takes": ["warn", "trim"]}
    assert parse(json.dumps(said).encode()) == replace(REPORT, takes=frozenset({"warn", "trim"}))
    assert parse(json.dumps(SAID | {"takes": 7}).encode()) is None


def test_asked_for_something(tmp_path: Path) -> None:
    asked: list[bytes] = []
    line = (
        b'{"done": true, "said": "freed 5 MiB", "before_mib": 9, "after_mib": 4.0, "freed_mib": 5, "x": 1}\n'
    )
    with sidecar(tmp_path / "s", lambda connection: connection.sendall(line), asked) as path:
        told = ask_for(path, "b1", 10752.0, Ask("trim", 10600.0, 180.0))
    assert told == Answer(True, "freed 5 MiB", 9.0, 4.0, 5.0)
    question = {"ask": "trim", "boot_id": "b1", "own_mib": 10600.0, "limit_mib": 10752.0, "lease_s": 180.0}
    assert [json.loads(line) for line in asked] == [question]


@pytest.mark.parametrize(
    "answer",
    [b"", b"{}\n", b"7\n", b"[]\n", b'{"done": true, "said": 7}\n', b'{"done": 1, "freed_mib": -1}\n'],
)
def test_an_odd_answer_is_none(tmp_path: Path, answer: bytes) -> None:
    with sidecar(tmp_path / "s", lambda connection: connection.sendall(answer)) as path:
        assert ask_for(path, "b1", 10752.0, Ask("warn", 10600.0, 180.0)) is None


@given(st.binary(max_size=200))
def test_no_bytes_raise(line: bytes) -> None:
    assert parse(line) is None
    assert parse_answer(line) is None


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_no_value_of_any_field_raises(value: object) -> None:
    for name in SAID:
        parse(json.dumps(SAID | {name: value}).encode())


@pytest.mark.parametrize("piece", [b"", b" "])
def test_silence_and_trickle_end_at_the_deadline(tmp_path: Path, piece: bytes) -> None:
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        while not over.wait(0.05):
            connection.sendall(piece)

    with sidecar(tmp_path / "s", serve) as path:
        began_s = time.monotonic()
        assert ask(path, deadline_s=0.3) is None
        assert time.monotonic() - began_s < 2.0
        over.set()


def test_nobody_there(tmp_path: Path) -> None:
    assert ask(str(tmp_path / "absent")) is None
    (tmp_path / "file").write_text("")
    assert ask(str(tmp_path / "file")) is None
    assert ask("/" + "x" * 300) is None
