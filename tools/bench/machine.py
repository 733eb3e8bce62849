"""What the figures were measured on."""

from __future__ import annotations

import datetime
import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil


class Others:
    """How many cores are kept busy by whoever is no descendant of this process."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._others_s = _all_busy_s() - _own_s()

    def cores(self) -> float:
        """The mean since this was made; to be asked when all child processes have ended."""
        busy_s = _all_busy_s() - _own_s() - self._others_s
        # The kernel counts the two in different steps: on a quiet machine their difference may fall below 0.
        return float(max(0.0, busy_s) / (time.monotonic() - self._began))


def facts() -> dict[str, Any]:
    """The machine, the versions, the day."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "transformers": metadata.version("transformers"),
    }


def _all_busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def _own_s() -> float:
    times = psutil.Process().cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
