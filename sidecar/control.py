"""The control socket: what the sidecar says of itself to the watchdog, and does for it; for nobody else.

One question and one answer per connection, each a line of JSON:

    {"ask": "report"}                                              the report below
    {"ask": "warn", "boot_id": "...", "own_mib": 10400, "lease_s": 180}
                                                                   {"done": true, "said": "...", ...}

The report's `takes` names the asks that are understood, so that either side may be the older one. What is
asked for is harmless and ends by itself (`sidecar.pressure`), and only the boot that it is meant for
obeys. The socket lies in a volume that only the two containers share; that is its whole access control,
since a watchdog without capabilities and a sidecar without root are strangers to each other's files.
Nothing here can be asked to stop, to load or to read anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from sidecar.own_memory import Own
from sidecar.pressure import TAKES, Asked
from sidecar.run import Drained
from sidecar.service import Service

log = logging.getLogger("sidecar.control")

QUESTION_BYTES = 1024
QUESTION_SECONDS = 2.0
LEASE_SECONDS = 180.0
LAST_DRAIN = "last_drain.json"


class Question(msgspec.Struct):
    """One line. All but `ask` are for what is more than a report."""

    ask: Literal["report"] | Asked
    boot_id: str = ""
    own_mib: float | None = None
    lease_s: float = LEASE_SECONDS


class Control:
    """Answers the watchdog. The result of the last drain outlives the process, in a file beside it."""

    def __init__(self, service: Service, folder: Path) -> None:
        self._service = service
        self._record = folder / LAST_DRAIN
        self.boot_id = service.events.boot_id
        self._last_drain = _read(self._record)

    def report(self) -> dict[str, Any]:
        """What is known right now, from memory. `own_mib` is null where nobody measured a card's memory."""
        stats, memory = self._service.stats(), self._service.pressure.now()
        return {
            "boot_id": self.boot_id,
            "phase": self._service.phase(),
            "own_mib": witness(memory.own),
            "rung": memory.rung.word,
            "takes": TAKES,
            "age_s": None if stats.heard_at is None else round(time.monotonic() - stats.heard_at, 3),
            "running": self._service.gate.running,
            "waiting": self._service.gate.waiting,
            "last_drain": self._last_drain,
        }

    def drained(self, result: Drained) -> None:
        """Keep what became of the running answers for the next boot to tell."""
        text = json.dumps({"boot_id": self.boot_id, "finished": result.finished, "cut": result.cut})
        with contextlib.suppress(OSError):  # a full disk must not keep us from stopping
            self._record.write_text(text, encoding="utf-8")

    async def _said(self, question: Question) -> dict[str, Any]:
        if question.ask == "report":
            return self.report()
        if question.boot_id != self.boot_id:
            return {"done": False, "said": "that was meant for another boot"}
        outcome = await self._service.pressure.ask(question.ask, question.own_mib, question.lease_s)
        return dataclasses.asdict(outcome)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection. Whoever asks slowly or strangely is not answered."""
        try:
            async with asyncio.timeout(QUESTION_SECONDS):
                question = msgspec.json.decode(await reader.readline(), type=Question)
            said = await self._said(question)
            async with asyncio.timeout(QUESTION_SECONDS):
                writer.write(json.dumps(said).encode() + b"\n")
                await writer.drain()
        except (TimeoutError, ValueError, OSError):
            log.debug("a question on the control socket was not understood")
        finally:
            writer.close()


def witness(own: Own | None) -> float | None:
    """Our figure as the watchdog may use it: the card's memory, and measured.

    It decides whose memory it is that is over the line. A plan would always clear us.
    """
    return round(own.mib, 1) if own is not None and own.on_card and own.is_measured else None


@contextlib.asynccontextmanager
async def listening(service: Service, path: Path | None) -> AsyncIterator[Control | None]:
    """Answer on `path` inside the block. Without a path, or where it can not be made, there is none."""
    server = None
    control = None
    if path is not None:
        control = Control(service, path.parent)
        try:
            path.unlink(missing_ok=True)  # of a boot that was killed
            server = await asyncio.start_unix_server(control.answer, path, limit=QUESTION_BYTES)
            os.chmod(path, 0o666)  # noqa: S103 - see the module: the volume decides who gets here
        except OSError as error:
            log.warning(
                "CONTROL_SOCKET=%s can not be made (%s); the watchdog will see the whole card only",
                path,
                error,
            )
    try:
        yield control
    finally:
        if server is not None:
            server.close()
            with contextlib.suppress(OSError):
                os.unlink(str(path))


def _read(record: Path) -> dict[str, Any] | None:
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
        return {name: kept[name] for name in ("boot_id", "finished", "cut")}
    except (OSError, ValueError, LookupError, TypeError):
        return None
