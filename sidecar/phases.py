"""When one generation reached what, and how its tokens came. Pure: times are given, in seconds of one clock.

arrived   priced   turn   first token ... last token
      price    queue   prefill        decode
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate


class Stream:
    """What the answers of one model have brought since the start: tokens, and the seconds between them.

    A histogram with one writer; `bounds` are the upper ends of its buckets, rising. The library's would
    cost several times as much at every token.
    """

    __slots__ = ("bounds", "counts", "seconds", "tokens")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.seconds = 0.0
        self.tokens = 0

    def buckets(self) -> list[tuple[str, float]]:
        """The upper end of each bucket, and how many gaps are not above it."""
        ends = [*map(str, map(float, self.bounds)), "+Inf"]
        return list(zip(ends, accumulate(self.counts), strict=True))


@dataclass(eq=False, slots=True)
class Phases:
    """One generation; None is not reached. `tokens` are pieces of text, which are tokens but for a few."""

    model: str
    arrived: float
    stream: Stream
    priced: float | None = None
    turn: float | None = None
    first: float | None = None
    last: float | None = None
    prompt_tokens: int = 0
    tokens: int = 0
    cut_by_length: bool = False
    _heard: dict[int, float] = field(default_factory=dict)

    def heard(self, choice: int, now: float) -> None:
        """A piece of one choice came."""
        stream, before = self.stream, self._heard.get(choice)
        if before is not None:
            gap_s = now - before
            stream.counts[bisect_left(stream.bounds, gap_s)] += 1
            stream.seconds += gap_s
        elif self.first is None:
            self.first = now
        self._heard[choice] = self.last = now
        self.tokens += 1
        stream.tokens += 1

    @property
    def price_s(self) -> float | None:
        """What tokenising took."""
        return _between(self.arrived, self.priced)

    @property
    def queue_s(self) -> float | None:
        """What was waited for a turn."""
        return _between(self.priced, self.turn)

    @property
    def first_token_s(self) -> float | None:
        """From the arrival to the first token."""
        return _between(self.arrived, self.first)

    @property
    def prefill_s(self) -> float | None:
        """From the turn to the first token."""
        return _between(self.turn, self.first)

    @property
    def decode_s(self) -> float | None:
        """From the first token to the last."""
        return _between(self.first, self.last)

    @property
    def inference_s(self) -> float | None:
        """From the turn to the last token."""
        return _between(self.turn, self.last)

    def per_token_s(self, tokens: int, choices: int) -> float | None:
        """The mean for a token behind the first one, if there is one. `tokens` are those of all choices."""
        behind_first = tokens / choices - 1
        return self.decode_s / behind_first if self.decode_s is not None and behind_first > 0 else None


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else end - begin
