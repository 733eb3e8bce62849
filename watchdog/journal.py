"""What was done and why: one log line each, and a short memory that reads as sentences.

    restarted 03:12: 10780, 10791, 10803 MiB > 10752; own 10770; 2 streams finished, 0 cut;
    ready again after 41 s

The wall clock appears here and nowhere else: it is for people, and may jump.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from watchdog.asks import Ask
from watchdog.decision import Restart
from watchdog.observation import Drain, Report
from watchdog.report import Answer

log = logging.getLogger("watchdog")
KEPT = 200
# A model that is not ready after an hour will be told of by somebody else.
FOLLOWED_S = 3600.0


@dataclass
class Entry:
    """One thing that happened. `more` holds its facts for programs."""

    at: datetime
    kind: str
    text: str
    more: dict[str, Any] = field(default_factory=dict)

    def sentence(self) -> str:
        """For people."""
        return f"{self.kind} {self.at:%H:%M}: {self.text}"

    def as_json(self) -> dict[str, Any]:
        """For programs, the sentence included."""
        return {"time": self.at.isoformat(), "kind": self.kind, "sentence": self.sentence(), **self.more}


@dataclass
class _Followed:
    entry: Entry
    asked_s: float
    boot_id: str | None


def _local_now() -> datetime:
    return datetime.now(UTC).astimezone()


class Journal:
    """Writes the log and keeps the last entries. May be read from another thread."""

    def __init__(self, wall: Callable[[], datetime] = _local_now) -> None:
        self._wall = wall
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self._followed: _Followed | None = None
        self._last_said = ""

    def entries(self) -> list[dict[str, Any]]:
        """The last entries, the oldest first."""
        with self._lock:
            return [entry.as_json() for entry in self._entries]

    def record(self, kind: str, text: str, level: int = logging.INFO, **more: Any) -> Entry:
        """One entry and one line."""
        entry = Entry(self._wall(), kind, text, more)
        with self._lock:
            self._entries.append(entry)
        log.log(level, entry.sentence(), extra={"event": kind, **more})
        return entry

    def quietly(self, reason: str) -> None:
        """Why nothing is done: a line when it is another reason than before, or a strike."""
        said = reason if reason.startswith("strike") else re.sub(r"\d+(\.\d+)?", "#", reason)
        if said != self._last_said:
            log.info(reason, extra={"event": "hold"})
        self._last_said = said

    def restart(self, kind: str, wish: Restart, **more: Any) -> Entry:
        """A restart and its readings, whatever became of it."""
        own_mib = wish.readings[-1].own_mib if wish.readings else None
        text = wish.reason + (f"; own {own_mib:.0f}" if own_mib is not None else "")
        used_mib = [strike.used_mib for strike in wish.readings if strike.used_mib is not None]
        facts = {"cause": wish.cause, "gpu": wish.gpu, "used_mib": used_mib, "own_mib": own_mib}
        return self.record(kind, text, logging.WARNING, **facts, **more)

    def step(self, ask: Ask, limit_mib: float, said: str, answer: Answer | None) -> Entry:
        """One step of the ladder: what was asked for at which reading, and what came of it."""
        level = logging.INFO if ask.step == "recover" else logging.WARNING
        facts: dict[str, Any] = {"own_mib": ask.own_mib, "limit_mib": limit_mib, "done": False}
        if answer is not None:
            facts |= {
                name: getattr(answer, name) for name in ("done", "before_mib", "after_mib", "freed_mib")
            }
        share = ask.own_mib / limit_mib
        text = f"own {ask.own_mib:.0f} MiB, {share:.1%} of {limit_mib:.0f}; {said}"
        return self.record(ask.step.replace("_", " "), text, level, **facts)

    def follow(self, entry: Entry, asked_s: float, boot_id: str | None) -> None:
        """From now on `heard` completes this entry, once the new boot is ready."""
        self._followed = _Followed(entry, asked_s, boot_id)

    @property
    def following(self) -> bool:
        """Whether an entry still waits for its end."""
        return self._followed is not None

    def heard(self, report: Report | None, now_s: float) -> None:
        """What the sidecar says now; the boot after the restart says how the one before it ended."""
        followed = self._followed
        if followed is None:
            return
        if now_s - followed.asked_s > FOLLOWED_S:
            self._followed = None
        elif report is not None and report.phase == "ready" and report.boot_id != followed.boot_id:
            self._complete(followed, report.last_drain, now_s - followed.asked_s)

    def _complete(self, followed: _Followed, drain: Drain | None, ready_s: float) -> None:
        self._followed = None
        entry, end = followed.entry, {"ready_after_s": round(ready_s, 1)}
        said = f"; ready again after {ready_s:.0f} s"
        if drain is not None and drain.boot_id == followed.boot_id:
            streams = "1 stream" if drain.finished == 1 else f"{drain.finished} streams"
            said = f"; {streams} finished, {drain.cut} cut{said}"
            end |= {"finished": drain.finished, "cut": drain.cut}
        with self._lock:
            entry.text += said
            entry.more |= end
        log.info(entry.sentence(), extra={"event": "ready again", **entry.more})
