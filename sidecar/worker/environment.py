"""What a process of ours that imports torch is given; for the side that starts it, without torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_PACKAGE_ROOT = str(Path(__file__).parents[2])


def environment_with(more: Mapping[str, str]) -> dict[str, str]:
    """Ours and `more`; the package is found wherever we were started from, and the key is left out.

    glibc gives each thread an arena of its own, and what one of them has free is of no use to the others:
    two are enough for a loop and its text threads.
    """
    path = os.pathsep.join(filter(None, (_PACKAGE_ROOT, os.environ.get("PYTHONPATH"))))
    env = {"MALLOC_ARENA_MAX": "2", **os.environ, **more, "PYTHONPATH": path}
    env.pop("API_KEY", None)  # such a process serves whom we let in
    return env
