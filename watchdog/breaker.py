"""The restart budget. Pure.

A restart that does not help must not be repeated for ever: a leak that returns within minutes, or
memory that somebody else holds, would turn the guard into the outage. Three in 30 minutes, then
six hours in which it only alerts, then one attempt at a time. systemd (5 in 10 s) and Ceph (3 in
30 min) stop in the same way; Docker's own back-off does not, since it forgets everything once a
container has lived for 10 seconds.

For memory that is over the limit for ever this makes 6 restarts on the first day and 30 in the
first week.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be spent: `restarts` in `window_s`, and how long it rests when they are spent."""

    restarts: int = 3
    window_s: float = 1800.0
    rest_s: float = 21600.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """What was spent, and when.

    `in_vain` counts restarts since memory was last seen under the limit. It bounds the storm of a
    sidecar that takes so long to load that three restarts never fall into one window.
    """

    restarts_s: tuple[float, ...] = ()
    in_vain: int = 0
    open_until_s: float | None = None
    tried: bool = False
    calm_since_s: float | None = None

    def left(self, allowance: Allowance, now_s: float) -> int:
        """How many restarts may follow now."""
        in_window = sum(now_s - at_s <= allowance.window_s for at_s in self.restarts_s)
        closed = max(0, allowance.restarts - max(in_window, self.in_vain))
        if self.open_until_s is None:
            return closed
        if now_s < self.open_until_s or self.tried:
            return 0
        return min(1, max(0, allowance.restarts - in_window))

    def next_s(self, now_s: float) -> float:
        """Seconds until the pause is over; 0 without one."""
        return max(0.0, (self.open_until_s or now_s) - now_s)

    def paused(self, now_s: float) -> bool:
        """Whether it only alerts at the moment."""
        return self.open_until_s is not None and now_s < self.open_until_s

    def spend(self, allowance: Allowance, at_s: float) -> Breaker:
        """One restart happened."""
        recent = tuple(s for s in self.restarts_s if at_s - s <= allowance.window_s)
        return replace(
            self,
            restarts_s=(*recent, at_s),
            in_vain=self.in_vain + 1,
            tried=self.open_until_s is not None,
            calm_since_s=None,
        )

    def trip(self, allowance: Allowance, now_s: float) -> Breaker:
        """A restart is wanted and none is left: rest."""
        return replace(self, open_until_s=now_s + allowance.rest_s, tried=False)

    def over(self) -> Breaker:
        """Memory is above the limit: whatever calm there was has ended."""
        return replace(self, calm_since_s=None)

    def calm(self, allowance: Allowance, now_s: float) -> Breaker:
        """Memory is under the limit; a whole window of that is a recovery, and closes the breaker."""
        since_s = now_s if self.calm_since_s is None else self.calm_since_s
        quiet = replace(self, in_vain=0, calm_since_s=since_s)
        if now_s - since_s < allowance.window_s or self.paused(now_s):
            return quiet
        return replace(quiet, open_until_s=None, tried=False)
