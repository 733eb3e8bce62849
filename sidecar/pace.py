"""How fast requests are answered, and from that how long one more would wait. Pure.

It is an estimate, for `Retry-After`: memory is left out of it, a prompt's time is part of its answer's,
and an event of a stream counts as one token until the engine has given its own count at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heapify, heapreplace

RETRY_MIN_S = 1.0
RETRY_MAX_S = 60.0
NEWEST = 0.2


@dataclass(frozen=True, slots=True)
class Pace:
    """What a request took lately: tokens, and seconds with its slot; an exponential average of each.

    The tokens are those of one choice: choices are made side by side. `ended` is the share of answers that
    came to an end before `max_tokens`: none is assumed to, until some have. Nothing is measured before the
    first answer; 20 tokens a second are assumed until then.
    """

    tokens: float = 128.0
    seconds: float = 6.4
    ended: float = 0.0
    measured: bool = False

    @property
    def tokens_per_s(self) -> float:
        """Of one request; of the sums, so that a short answer to a long prompt counts for little."""
        return self.tokens / self.seconds

    def after(self, tokens: float, seconds: float, *, ended: bool) -> Pace:
        """With one request more. One that brought no token or took no time says nothing."""
        if tokens <= 0 or seconds <= 0:
            return self
        weight = NEWEST if self.measured else 1.0
        return Pace(
            self.tokens + weight * (tokens - self.tokens),
            self.seconds + weight * (seconds - self.seconds),
            self.ended + NEWEST * (ended - self.ended),
            measured=True,
        )

    def left(self, max_tokens: float, generated: float = 0.0) -> float:
        """Tokens that an answer still takes: up to `max_tokens`, or to its own end, if that is sooner.

        Its own end may come with any token: tokens by ends is the mean way to the next one, however long an
        answer is already. Answers that were cut count with their tokens, not as ends.
        """
        left = max(0.0, max_tokens - generated)
        return min(left, self.tokens / self.ended) if self.ended else left


def wait_estimate_s(
    running: Iterable[float], waiting: Iterable[float], tokens_per_s: float, slots: int
) -> float:
    """Seconds until somebody who comes now would run, within 1 to 60.

    `running` and `waiting` are the tokens that each request still takes, those who wait in their order.
    Each of these takes the place of the first who ends, and so does the newcomer after them. As many run
    at once as do now; where nobody does, as many as there are `slots`.
    """
    ends = list(running) or [0.0] * max(1, slots)
    heapify(ends)
    for tokens in waiting:
        if ends[0] >= RETRY_MAX_S * tokens_per_s:
            break
        heapreplace(ends, ends[0] + tokens)
    return min(RETRY_MAX_S, max(RETRY_MIN_S, ends[0] / tokens_per_s))
