"""What is free here: disk and main memory, now."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from sidecar.budget import MIB


def free_disk_mib(folder: Path) -> float:
    """What may still be written below the folder, or where it will be made."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / MIB


def free_memory_mib(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """What can still be taken: of the machine (proc(5), MemAvailable), and of our container (cgroup v2)."""
    fields = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    free_mib = int(fields["MemAvailable"].split()[0]) / 1024
    with contextlib.suppress(OSError, ValueError):  # `max`, or no such file: no limit of our own
        limit = int((cgroup / "memory.max").read_text())
        held = int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        free_mib = min(free_mib, (limit - held + int(stat["inactive_file"])) / MIB)
    return free_mib
