"""What the sidecar says of itself, and what it is asked for, over the unix socket that only the two share.

One line out, one line back, within seconds. Whatever is odd about the answer is none: the sidecar
may be loading, hung, older than this program, or gone, and none of that is news here.
"""

from __future__ import annotations

import json
import math
import socket
import time
from dataclasses import dataclass
from typing import Any

from watchdog.asks import Ask
from watchdog.observation import Drain, Report

DEADLINE_S = 2.0
# A trim waits for the step that the engine is at.
ASK_S = 5.0
BYTES_MAX = 64 * 1024
_ASK = b'{"ask": "report"}\n'


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an ask. `said` is the sidecar's own sentence about it."""

    done: bool
    said: str = ""
    before_mib: float | None = None
    after_mib: float | None = None
    freed_mib: float | None = None


def ask(path: str, deadline_s: float = DEADLINE_S) -> Report | None:
    """The report, or None. Never raises and never takes longer than the deadline."""
    return parse(_told(path, _ASK, deadline_s))


def ask_for(path: str, boot_id: str, limit_mib: float, ask: Ask, deadline_s: float = ASK_S) -> Answer | None:
    """Ask that boot for one thing; its answer, or None. Never raises, never takes longer than that."""
    question = {
        "ask": ask.what,
        "boot_id": boot_id,
        "own_mib": ask.own_mib,
        "limit_mib": limit_mib,
        "lease_s": ask.lease_s,
    }
    return parse_answer(_told(path, json.dumps(question).encode() + b"\n", deadline_s))


def _told(path: str, question: bytes, deadline_s: float) -> bytes:
    """The line that comes back; empty when none does."""
    until_s = time.monotonic() + deadline_s
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(deadline_s)
            connection.connect(path)
            connection.sendall(question)
            return _line(connection, until_s)
    except (OSError, ValueError):
        return b""


def parse(line: bytes) -> Report | None:
    """One line of JSON as a report; None for anything that is not exactly one."""
    try:
        said = json.loads(line)
        return _report(said)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def parse_answer(line: bytes) -> Answer | None:
    """One line of JSON as an answer; None for anything that is not exactly one."""
    try:
        said = json.loads(line)
        text = said.get("said", "")
        return Answer(
            done=said["done"] is True,
            said=_name(text) if text else "",
            before_mib=_number(said.get("before_mib")),
            after_mib=_number(said.get("after_mib")),
            freed_mib=_number(said.get("freed_mib")),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _line(connection: socket.socket, until_s: float) -> bytes:
    """Up to the first line feed, and no byte after the deadline, however slowly they trickle in."""
    taken = b""
    while b"\n" not in taken and len(taken) <= BYTES_MAX:
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        piece = connection.recv(4096)
        if not piece:
            break
        taken += piece
    if len(taken) > BYTES_MAX:
        raise ValueError("the report is too long")
    return taken.partition(b"\n")[0]


def _report(said: dict[str, Any]) -> Report:
    return Report(
        boot_id=_name(said["boot_id"]),
        phase=_name(said["phase"]),
        own_mib=_number(said.get("own_mib")),
        age_s=_number(said.get("age_s")),
        running=_count(said.get("running", 0)),
        waiting=_count(said.get("waiting", 0)),
        last_drain=_drain(said.get("last_drain")),
        takes=frozenset(_name(what) for what in said.get("takes") or ()),
    )


def _drain(said: dict[str, Any] | None) -> Drain | None:
    if said is None:
        return None
    return Drain(_name(said["boot_id"]), _count(said["finished"]), _count(said["cut"]))


def _name(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 128 or not value.isprintable():
        raise ValueError(value)
    return value


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(value)
    return float(value)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return value
