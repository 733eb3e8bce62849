"""How much memory a process and its descendants hold, from /proc; and the cards, from their driver.

How long a process had to wait for a processor stands there too.

Between two looks at a process nothing is missed: the kernel keeps its high-water mark.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sidecar import gpu
from sidecar.budget import MIB

LINE = re.compile(r"^Vm(RSS|HWM):\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Held:
    """MiB in main memory now, and the most since the first look."""

    now_mib: float
    peak_mib: float


class Process:
    """One process. What it held before the first look (while it loaded) is no part of its peak."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._peak_kib: int | None = None
        self._seen_kib = 0

    def look(self) -> Held | None:
        """None when it is gone."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return None
        kib = {name: int(value) for name, value in LINE.findall(status)}
        if "RSS" not in kib:  # it has ended, and nobody has asked how
            return None
        if self._peak_kib is None:
            self._peak_kib = kib["HWM"]
        self._seen_kib = max(self._seen_kib, kib["RSS"])
        if kib["HWM"] > self._peak_kib:
            self._seen_kib = max(self._seen_kib, kib["HWM"])
        return Held(kib["RSS"] / 1024, self._seen_kib / 1024)


class Tree:
    """A sidecar by its process id: itself, and the engine, which is all that descends from it.

    One that has no descendants is its own engine.
    """

    def __init__(self, pid: int) -> None:
        self._root = Process(pid)
        self._below: dict[int, Process] = {}

    def look(self) -> tuple[Held, Held | None] | None:
        """The engine, and the sidecar unless that is the same; None when it is gone."""
        own = self._root.look()
        if own is None:
            return None
        pids = descendants(self._root.pid)
        self._below = {pid: self._below.get(pid) or Process(pid) for pid in pids}
        held = [found for process in self._below.values() if (found := process.look()) is not None]
        if not pids:
            return own, None
        return Held(sum(one.now_mib for one in held), sum(one.peak_mib for one in held)), own


def processor_s(pid: int) -> tuple[float, float] | None:
    """Seconds for which the process' first thread ran, and for which it could have run but had to wait."""
    try:
        ran_ns, waited_ns, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    except (OSError, ValueError):  # gone, or a kernel without these figures
        return None
    return int(ran_ns) / 1e9, int(waited_ns) / 1e9


def descendants(pid: int) -> list[int]:
    """Children, and theirs."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(word) for word in task.read_text().split()]
        except OSError:  # the thread has ended meanwhile
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


class Cards:
    """All cards of this machine together, less what others held on them when this was made."""

    def __init__(self, *, others: bool) -> None:
        """`others` is whether what is held now is theirs: before our own sidecar is started."""
        self._theirs_mib = (_used_mib() or 0.0) if others else 0.0

    def look(self) -> float | None:
        """MiB; None where no driver answers."""
        used_mib = _used_mib()
        return None if used_mib is None else used_mib - self._theirs_mib


def _used_mib() -> float | None:
    seen = gpu.look()
    if isinstance(seen, gpu.GpuUnreadable) or not seen:
        return None
    return sum(card.memory_used_bytes for card in seen) / MIB
