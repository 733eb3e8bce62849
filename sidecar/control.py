"""The control socket: what the sidecar says of itself to the watchdog, and to nobody else.

One question and one answer per connection, each a line of JSON: `{"ask": "report"}` gives the
report below. The socket lies in a volume that only the two containers share; that is its whole
access control, since a watchdog without capabilities and a sidecar without root are strangers to
each other's files. Nothing here can be asked to stop, to load or to read anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sidecar.budget import CUDA_CONTEXT_MIB, MIB
from sidecar.generation import EngineStats
from sidecar.service import Drained, Service

log = logging.getLogger("sidecar.control")

QUESTION_BYTES = 1024
QUESTION_SECONDS = 2.0
LAST_DRAIN = "last_drain.json"


class Control:
    """Answers the watchdog. The result of the last drain outlives the process, in a file beside it."""

    def __init__(self, service: Service, folder: Path) -> None:
        self._service = service
        self._record = folder / LAST_DRAIN
        self.boot_id = uuid.uuid4().hex
        self._last_drain = _read(self._record)

    def report(self) -> dict[str, Any]:
        """What is known right now, from memory. `own_mib` is null where no card is used."""
        stats = self._service.stats()
        return {
            "boot_id": self.boot_id,
            "phase": self._service.phase(),
            "own_mib": own_mib(stats),
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

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection. Whoever asks slowly or strangely is not answered."""
        try:
            async with asyncio.timeout(QUESTION_SECONDS):
                if _asks_for_report(await reader.readline()):
                    writer.write(json.dumps(self.report()).encode() + b"\n")
                    await writer.drain()
        except (TimeoutError, ValueError, OSError):
            log.debug("a question on the control socket was not understood")
        finally:
            writer.close()


def own_mib(stats: EngineStats) -> float | None:
    """The card's memory that is ours: what the allocator holds, and the CUDA context beside it."""
    if not stats.memory_reserved_bytes:
        return None
    return round(stats.memory_reserved_bytes / MIB + CUDA_CONTEXT_MIB, 1)


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


def _asks_for_report(line: bytes) -> bool:
    question = json.loads(line or b"null")
    return isinstance(question, dict) and question.get("ask") == "report"


def _read(record: Path) -> dict[str, Any] | None:
    try:
        kept = json.loads(record.read_text(encoding="utf-8"))
        return {name: kept[name] for name in ("boot_id", "finished", "cut")}
    except (OSError, ValueError, LookupError, TypeError):
        return None
