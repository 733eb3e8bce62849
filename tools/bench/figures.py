"""Pairs of measurements and what is said about them: medians, the ratio, whether it is enough."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

DIGITS = 4


@dataclass(frozen=True, slots=True)
class Point:
    """One line of a table. `ours[i]` and `theirs[i]` were measured one after the other.

    The ratio says how many times better ours is, whichever direction is better, so that what is
    wanted is always a least value. None is wanted where a figure is only shown.
    """

    table: str
    what: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float]
    wanted: float | None = None
    less_is_better: bool = False

    def as_json(self) -> dict[str, Any]:
        """The point as it is kept: every figure that a table shows, and the raw pairs."""
        ratios = [self._ratio(a, b) for a, b in zip(self.ours, self.theirs, strict=True)]
        middle = statistics.median(ratios)
        return {
            "table": self.table,
            "what": self.what,
            "unit": self.unit,
            "ours": rounded(statistics.median(self.ours)),
            "theirs": rounded(statistics.median(self.theirs)),
            "ratio": rounded(middle),
            "ratio_range": [rounded(min(ratios)), rounded(max(ratios))],
            "pairs": len(ratios),
            "wanted": self.wanted,
            "met": None if self.wanted is None else middle >= self.wanted,
            "raw": [[rounded(a), rounded(b)] for a, b in zip(self.ours, self.theirs, strict=True)],
        }

    def _ratio(self, ours: float, theirs: float) -> float:
        return theirs / ours if self.less_is_better else ours / theirs


def rounded(value: float) -> float:
    """To four significant digits: more would be noise."""
    return float(f"{value:.{DIGITS}g}")


def number(value: float) -> str:
    """As a table shows it: three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def alternating(
    ours: Callable[[int], float], theirs: Callable[[int], float], pairs: int
) -> tuple[list[float], list[float]]:
    """A, B, A, B ...: each side is called with the number of the pair."""
    found: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        found[0].append(ours(pair))
        found[1].append(theirs(pair))
    return found
