"""Whether a child died for lack of memory: by the kernel's hand, or by its own when an allocation failed."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path

ROOT = Path("/")
_ABORTED = re.compile(r"std::bad_alloc|memory allocation of \d+ bytes failed|^MemoryError", re.MULTILINE)
_ADVICE = "take a smaller model or a shorter context, or give it more memory"


def oom_kills(root: Path = ROOT) -> int:
    """How often the kernel has killed for memory: in our cgroup, else on the machine; 0 if it does not say.

    cgroup v2: memory.events; v1: memory.oom_control; proc(5): vmstat. A child is in its parent's cgroup.
    """
    for file in (*_of_cgroup(root), root / "proc/vmstat"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            return int(dict(line.split(maxsplit=1) for line in file.read_text().splitlines())["oom_kill"])
    return 0


def memory_words(exit_code: int, tail: str, kills: int) -> str:
    """Why it died, if memory was the reason; `kills` is how many the kernel killed in its time."""
    if exit_code == -signal.SIGKILL and kills > 0:
        return f"the kernel killed it because memory ran out: {_ADVICE}"
    if exit_code != 0 and (found := _ABORTED.search(tail)):
        return f"it ended itself because memory ran out ({found[0]}): {_ADVICE}"
    return ""


def _of_cgroup(root: Path) -> list[Path]:
    """The files of our cgroup, if it can be told; seen from inside a container it is the root of them all."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                found.append(root / "sys/fs/cgroup" / path.lstrip("/") / "memory.events")
            elif controllers == "memory":
                found.append(root / "sys/fs/cgroup/memory" / path.lstrip("/") / "memory.oom_control")
    return [*found, root / "sys/fs/cgroup/memory.events"]
