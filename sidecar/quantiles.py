"""What share of measured values is at most how much. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence


def quantile(values: Sequence[float], share: float) -> float:
    """The least value that `share` of them do not exceed: nearest rank, so always one that was measured.

    ValueError where nothing was measured, or for a share outside 0 to 1.
    """
    if not values or not 0 <= share <= 1:
        raise ValueError(f"no quantile {share:g} of {len(values)} values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
