"""Whether the port is free, and who has it: a sidecar that answers, or a process that /proc tells of."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from sidecar.doctor.driver import process_name
from sidecar.doctor.facts import Holder, Port
from sidecar.errors import PortInUse
from sidecar.listening import listening, url_of

PROC = Path("/proc")
LISTEN = "0A"  # TCP_LISTEN of the kernel's table
ASK_SECONDS = 3
HEALTH_BYTES = 65536


def look(host: str, port: int) -> Port:
    """Taken and let go of again. Raises ConfigError for an address that is none."""
    try:
        with listening(host, port) as listener:
            return Port(host, listener.getsockname()[1])
    except PortInUse as error:
        served = _served_at(url_of(host, port))
        return Port(host, port, error.message.partition("; ")[0], served, _holder(port))


def _holder(port: int) -> Holder | None:
    pid = port_holder(port)
    return None if pid is None else Holder(pid, process_name(pid), None)


def _served_at(url: str) -> str | None:
    """The model of the sidecar that answers there; None when it is none."""
    # No proxy of the environment stands between this machine and itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=ASK_SECONDS) as answer:
            told = answer.read(HEALTH_BYTES)
    except urllib.error.HTTPError as error:
        told = error.read(HEALTH_BYTES)  # 503 while it loads, with the same body
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return _model_in(told)


def _model_in(health: bytes) -> str | None:
    try:
        body = json.loads(health)
        return str(body["model"]) if "model_loaded" in body else None
    except (ValueError, LookupError, TypeError):
        return None


def port_holder(port: int, proc: Path = PROC) -> int | None:
    """The process id; None where nobody listens, or it is not to be seen from here."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port, proc)}
    return next((pid for pid in _pids(proc) if wanted and wanted & set(_open(proc / str(pid) / "fd"))), None)


def listening_inodes(table: str, port: int) -> set[str]:
    """The sockets that listen on the port, in the text of /proc/net/tcp or tcp6 (proc(5))."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {row[9] for row in rows if len(row) > 9 and row[3] == LISTEN and row[1].endswith(f":{port:04X}")}


def _inodes(port: int, proc: Path) -> set[str]:
    found: set[str] = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            found |= listening_inodes((proc / "net" / name).read_text(), port)
    return found


def _pids(proc: Path) -> list[int]:
    return sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())


def _open(folder: Path) -> Iterator[str]:
    """What the descriptors of a process lead to; nothing of a process of somebody else."""
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            with contextlib.suppress(OSError):
                yield os.readlink(entry)
