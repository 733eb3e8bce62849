"""Which rung a reading of our own memory stands on. Pure.

    warn             above 96 % of the budget
    stop admitting   above 98 %
    over             above 100 %, strictly, as the watchdog counts its strikes

A plan fills 92 % at most (`budget.FILL`), so whoever stands on a rung has outgrown its plan. A rung
is left one per cent below its line, so that a reading that lies on the line does not flap. The
watchdog has the same lines in `watchdog/rungs.py`; a test holds the two equal.
"""

from __future__ import annotations

from enum import IntEnum


class Rung(IntEnum):
    """How far up it is; the higher ones hold what the lower ones hold."""

    STEADY = 0
    WARN = 1
    STOP_ADMITTING = 2
    OVER = 3

    @property
    def word(self) -> str:
        """As it is written in events and in /health."""
        return self.name.lower()


LINES = {Rung.WARN: 0.96, Rung.STOP_ADMITTING: 0.98, Rung.OVER: 1.0}
# How far below its line a rung is left, as a share of the budget.
SLACK = 0.01


def rung(reading_mib: float, budget_mib: float, before: Rung = Rung.STEADY) -> Rung:
    """The rung of a reading, where the one before it stood on `before`."""
    found = Rung.STEADY
    for step, line in LINES.items():
        held = line - SLACK if step <= before else line
        if reading_mib > budget_mib * held:
            found = step
    return found
