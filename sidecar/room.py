"""What there is here, and what of it is free now: disk and main memory."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from sidecar.budget import MIB

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def free_disk_mib(folder: Path) -> float:
    """What may still be written below the folder, or where it will be made."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / MIB


def memory_mib(proc: Path = PROC, cgroup: Path = CGROUP) -> int:
    """All there is: of the machine (proc(5), MemTotal), or what our container may have (cgroup v2)."""
    whole_mib = _meminfo_mib(proc, "MemTotal")
    with contextlib.suppress(OSError, ValueError):  # `max`, or no such file: no limit of our own
        whole_mib = min(whole_mib, int((cgroup / "memory.max").read_text()) / MIB)
    return int(whole_mib)


def free_memory_mib(proc: Path = PROC, cgroup: Path = CGROUP) -> float:
    """What can still be taken: of the machine (proc(5), MemAvailable), and of our container (cgroup v2)."""
    free_mib = _meminfo_mib(proc, "MemAvailable")
    with contextlib.suppress(OSError, ValueError):  # `max`, or no such file: no limit of our own
        limit = int((cgroup / "memory.max").read_text())
        held = int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        free_mib = min(free_mib, (limit - held + int(stat["inactive_file"])) / MIB)
    return free_mib


def _meminfo_mib(proc: Path, field: str) -> float:
    fields = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    return int(fields[field].split()[0]) / 1024
