"""How far the sidecar's own memory has climbed towards the limit. Pure.

The lines are the sidecar's (`sidecar/ladder.py`): 96, 98 and 100 % of VRAM_BUDGET, each left one per
cent below. Neither program imports the other, so a test holds the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Rung(IntEnum):
    """How far up it is."""

    STEADY = 0
    WARN = 1
    STOP_ADMITTING = 2
    OVER = 3


LINES = {Rung.WARN: 0.96, Rung.STOP_ADMITTING: 0.98, Rung.OVER: 1.0}
SLACK = 0.01
# Below this, no card is near a rung.
LOWEST = LINES[Rung.WARN] - SLACK


@dataclass(frozen=True, slots=True)
class Stood:
    """What is remembered: the rung, and the boot that stood on it."""

    boot_id: str = ""
    rung: Rung = Rung.STEADY


def rung(reading_mib: float, limit_mib: float, before: Rung = Rung.STEADY) -> Rung:
    """The rung of a reading, where the one before it stood on `before`."""
    found = Rung.STEADY
    for step, line in LINES.items():
        held = line - SLACK if step <= before else line
        if reading_mib > limit_mib * held:
            found = step
    return found
