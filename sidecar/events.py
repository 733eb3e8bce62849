"""What happened to the memory and to the engine, and why: a short memory, and a file that outlives us.

    {"id": 41, "time": "...", "boot_id": "...", "kind": "trim", "by": "watchdog", "text": "...",
     "own_mib": 10420.0, "budget_mib": 10752, "before_mib": 10540.0, "after_mib": 10420.0, "freed_mib": 120.0}

The file holds one such line for each event. It is rotated once at `FILE_BYTES`, so that two such files are
the most there ever is, and a disk that is full stops nobody. Nothing of a request is ever written here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

log = logging.getLogger("sidecar.events")

KEPT = 500
FILE_BYTES = 4 * 1024 * 1024
TAIL_BYTES = 256 * 1024
TEXT_CHARS = 300

Kind = Literal[
    "start", "restart", "stop", "stopped",
    "engine_start", "engine_ready", "engine_death", "engine_failed", "engine_stop", "out_of_memory",
    "warn", "stop_admitting", "over", "trim", "drain", "recover",
]  # fmt: skip
# What the terminal says in its own words while it starts.
QUIET = {"start": logging.DEBUG, "engine_start": logging.DEBUG, "engine_ready": logging.DEBUG}
Event = Mapping[str, Any]
Reading = Callable[[], Mapping[str, Any]]


class Events:
    """The ring and its file. One thread writes; `boot_id` names this life, `counts` are its kinds."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        kept: int = KEPT,
        file_bytes: int = FILE_BYTES,
    ) -> None:
        """With `path`, what the boots before this one wrote is known again."""
        self.boot_id = uuid.uuid4().hex
        self.counts: Counter[str] = Counter()
        self.reading: Reading = dict
        self._path, self._wall, self._file_bytes = path, wall, file_bytes
        self._ring: deque[Event] = deque(read(path) if path else (), maxlen=kept)
        self._last_id = max((event["id"] for event in self._ring), default=0)
        self._failing = False

    def record(self, kind: Kind, text: str, *, by: str = "sidecar", **more: Any) -> Event:
        """One event, with the memory as it stands. What is not known is left out."""
        self._last_id += 1
        said = {
            "id": self._last_id,
            "time": self._wall().isoformat(timespec="milliseconds"),
            "boot_id": self.boot_id,
            "kind": kind,
            "by": by,
            "text": text[:TEXT_CHARS],
        }
        event = said | {k: v for k, v in {**self.reading(), **more}.items() if v is not None}
        self._ring.append(event)
        self.counts[kind] += 1
        self._write(json.dumps(event).encode() + b"\n")
        figures = {name: value for name, value in event.items() if name not in said}
        level = QUIET.get(kind, logging.INFO)
        log.log(level, event["text"], extra={"event": kind, "by": by, **figures})
        return event

    def since(self, id: int = 0, limit: int = KEPT) -> list[Event]:
        """The newest `limit` events behind the one with that id, the oldest of them first."""
        return [event for event in self._ring if event["id"] > id][-limit:]

    def begin(self) -> None:
        """This boot begins: why, as far as the boot before it has told."""
        drain, how = None, "it did not say how it ended"
        for event in self._ring:
            if event["kind"] in ("start", "restart", "recover"):
                drain, how = None, "it did not say how it ended"
            elif event["kind"] == "drain":
                drain = event
            elif event["kind"] == "stopped":
                how = event["text"]
        if drain is None:
            self.record("start", "started")
        else:
            text = f"started again by the watchdog's hand; {how}"
            self.record("restart", text, by="watchdog", before_mib=drain.get("own_mib"))

    def _write(self, line: bytes) -> None:
        if self._path is None:
            return
        try:
            _append(self._path, line, self._file_bytes)
            self._failing = False
        except OSError as error:
            if not self._failing:
                log.warning("events can not be written to %s (%s); the last ones are kept", self._path, error)
            self._failing = True


def read(path: Path) -> list[Event]:
    """The newest events of the file and of the one before it; none where there is none."""
    tails = (_tail(_older(path)), _tail(path))
    return [event for tail in tails for event in _events(tail.splitlines())]


def _append(path: Path, line: bytes, file_bytes: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        if os.stat(path).st_size + len(line) > file_bytes:
            path.replace(_older(path))
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # the last boot was killed in the midst of a line
                line = b"\n" + line
        file.write(line)


def _older(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.stat(path).st_size - TAIL_BYTES))
            return file.read()
    except OSError:
        return b""


def _events(lines: Iterable[bytes]) -> list[Event]:
    found = []
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            event = json.loads(line)
            if isinstance(event["id"], int) and all(isinstance(event[name], str) for name in _NAMES):
                found.append(event)
    return found


_NAMES = ("time", "boot_id", "kind", "by", "text")
