"""What the figures were measured on."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

LOOP = 1_000_000
LOOPS_AT_FIRST, LOOPS_AT_ONCE = 40, 3
# A turn may begin where the loop takes a tenth more than in the fastest quarter of the first looks.
CALM, CALM_LOOK_S, CALM_WITHIN_S = 1.1, 0.5, 600.0


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


class Host:
    """How fast the host is at the moment. What its other guests do to a virtual machine, no figure of that
    machine shows: a loop of Python that always does the same does.
    """

    def __init__(self) -> None:
        self._calm_ms = CALM * statistics.quantiles([_loop_ms() for _ in range(LOOPS_AT_FIRST)], n=4)[0]
        self._patience_s = CALM_WITHIN_S
        self._found_ms: list[float] = []

    def calm(self) -> None:
        """Return once the loop takes what it took at the beginning, or the patience for all turns is over."""
        began = time.monotonic()
        while (now_ms := self._look_ms()) > self._calm_ms and time.monotonic() < began + self._patience_s:
            time.sleep(CALM_LOOK_S)  # other guests send no event when they are done
        self._patience_s -= time.monotonic() - began
        self._found_ms.append(now_ms)

    def loop_ms(self) -> list[float]:
        """Least, median and most of what the loop took where it was waited for."""
        found = sorted(self._found_ms)
        return [round(ms, 1) for ms in (found[0], found[len(found) // 2], found[-1])]

    def _look_ms(self) -> float:
        return statistics.median(_loop_ms() for _ in range(LOOPS_AT_ONCE))


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


def _loop_ms() -> float:
    began, total = time.perf_counter(), 0
    for number in range(LOOP):
        total += number
    return (time.perf_counter() - began) * 1e3


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
