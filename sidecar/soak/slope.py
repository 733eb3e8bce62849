"""How fast something grows, told so that a few outliers decide nothing: Theil and Sen. Pure.

The slope is the median of the slopes between all pairs of points; its interval is Sen's, from the
variance of Kendall's rank statistic with ties counted (Sen 1968, Journal of the American Statistical
Association 63, 1379).
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Point = tuple[float, float]
Verdict = Literal["LEAK", "NO LEAK", "TOO SHORT TO SAY"]

CONFIDENCE = 0.95
# Neighbours in time are alike, which the interval's theory does not know; and pairs grow with the square.
MOST_POINTS, LEAST_POINTS = 100, 10
# Until every slot has once been full, memory is touched for the first time, which is no leak.
LEAST_REQUESTS = 100
LIMIT_PER_1000 = 1.0
WARM_UP_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth for each step of x, and the interval in which the truth lies with 95 %.

    `span` is how far the points reach in x.
    """

    middle: float
    low: float
    high: float
    points: int
    span: float

    def times(self, factor: float) -> Slope:
        """For so many steps; the factor is above zero."""
        return Slope(self.middle * factor, self.low * factor, self.high * factor, self.points, self.span)


def theil_sen(points: Sequence[Point], confidence: float = CONFIDENCE) -> Slope | None:
    """None where there are no two different x. Takes time with the square of the points: see `thinned`."""
    slopes = sorted(
        (y2 - y1) / (x2 - x1) for i, (x1, y1) in enumerate(points) for x2, y2 in points[i + 1 :] if x1 != x2
    )
    if not slopes:
        return None
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    reach = z * _kendall_sigma(points)
    low = max(round((len(slopes) - reach) / 2) - 1, 0)
    high = min(round((len(slopes) + reach) / 2), len(slopes) - 1)
    span = max(x for x, _ in points) - min(x for x, _ in points)
    return Slope(statistics.median(slopes), slopes[low], slopes[high], len(points), span)


def _kendall_sigma(points: Sequence[Point]) -> float:
    """Of the count of pairs that rise less those that fall, if there were no slope."""
    ties = (Counter(values) for values in zip(*points, strict=True))
    tied = sum(_pairs_squared(count) for values in ties for count in values.values())
    return math.sqrt(max(0, _pairs_squared(len(points)) - tied) / 18)


def _pairs_squared(count: int) -> int:
    return count * (count - 1) * (2 * count + 5)


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most so many: the medians of neighbours."""
    size = -(-len(points) // most)
    blocks = [points[i : i + size] for i in range(0, len(points), size)] if size > 1 else []
    if not blocks:
        return list(points)
    return [
        (statistics.median(x for x, _ in block), statistics.median(y for _, y in block)) for block in blocks
    ]


def warmed_up(samples: Iterable[tuple[float, int, float]], warm_up: int) -> list[Point]:
    """(seconds, requests done, MiB) as (requests, MiB), without the warm-up.

    That is so many requests; where the whole is not twice as many, the first fifth of the time.
    """
    kept = list(samples)
    if not kept:
        return []
    first_s, (last_s, done, _) = kept[0][0], kept[-1]
    if done >= 2 * warm_up:
        return [(count, mib) for _, count, mib in kept if count >= warm_up]
    begin_s = first_s + (last_s - first_s) * WARM_UP_SHARE
    return [(count, mib) for at_s, count, mib in kept if at_s >= begin_s]


def growth(points: Sequence[Point]) -> Slope | None:
    """MiB for each request; points as of `warmed_up`. None: nothing to tell from."""
    return theil_sen(thinned(points))


def verdict(points: Sequence[Point], warm_up: int) -> Verdict:
    """LEAK where the whole interval is above 1 MiB in 1000 requests, NO LEAK where none of it is.

    Points as of `warmed_up`. What is not warm yet grows, and what has stopped growing is no leak: both are
    too short to say, so the points begin behind the warm-up, and the later half of them says the same.
    """
    slope = growth(points)
    if slope is None or slope.points < LEAST_POINTS or slope.span < LEAST_REQUESTS:
        return "TOO SHORT TO SAY"
    if slope.times(1000).high <= LIMIT_PER_1000:
        return "NO LEAK"
    later = growth(points[len(points) // 2 :])
    if later is None or points[0][0] < warm_up:
        return "TOO SHORT TO SAY"
    return "LEAK" if min(slope.low, later.low) * 1000 > LIMIT_PER_1000 else "TOO SHORT TO SAY"
