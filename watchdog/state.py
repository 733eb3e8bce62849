"""What the guard was told, and what it remembers from one look to the next. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from watchdog.breaker import Allowance, Breaker
from watchdog.observation import Card, Container, Observation
from watchdog.rungs import Stood

# What Docker may need beyond the stop timeout: to reap the old process and to start the new one.
SETTLE_MARGIN_S = 45.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What was configured, and what follows from it."""

    limit_mib: float = 10752.0
    interval_s: float = 60.0
    strikes: int = 3
    scope: Literal["own", "card"] = "own"
    allowance: Allowance = field(default_factory=Allowance)
    loading_grace_s: float = 1800.0
    restart_timeout_s: float = 45.0

    @property
    def grace_s(self) -> float:
        """After a new boot: long enough for the first report of what it is doing."""
        return 2 * self.interval_s

    @property
    def expiry_s(self) -> float:
        """Strikes further apart than this are not consecutive, however many looks failed between.

        Five intervals for three strikes: two looks may fail within a streak.
        """
        return (self.strikes + 2) * self.interval_s

    @property
    def settle_s(self) -> float:
        """A restart call whose outcome is unknown may still be at work for this long."""
        return self.restart_timeout_s + SETTLE_MARGIN_S

    def is_over(self, card: Card) -> bool:
        """Strictly above the limit, and by the sidecar's own doing where that can be told.

        Restarting can not free what somebody else holds: two guards on one card would restart each
        other's sidecars in turn. With scope `card` the whole card counts, as in seed 000.
        """
        if card.used_mib <= self.limit_mib:
            return False
        return self.scope == "card" or card.own_mib is None or card.own_mib > self.limit_mib

    def is_foreign(self, card: Card) -> bool:
        """Above the limit, and not by the sidecar's doing."""
        return card.used_mib > self.limit_mib and not self.is_over(card)


@dataclass(frozen=True, slots=True)
class Strike:
    """One reading above the limit, or one look at a lost card (`used_mib` None)."""

    at_s: float
    used_mib: float | None = None
    own_mib: float | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A restart that was asked for, first at `since_s`. `sure` once the daemon said it happened."""

    at_s: float
    sure: bool
    since_s: float


@dataclass(frozen=True, slots=True)
class Identity:
    """Which boot this is. Each part may be unknown; one known part that differs is a new boot.

    Several witnesses, because each can be missing: the sidecar's report carries its own boot id,
    the engine names the host's process ids, and an uptime that shrinks is a new start.
    """

    container_id: str | None = None
    boot_id: str | None = None
    root_pid: int | None = None
    uptime_s: float | None = None

    @classmethod
    def of(cls, container: Container, seen: Observation) -> Identity:
        """What this look says about who is running."""
        boot_id = seen.report.boot_id if seen.report else None
        return cls(container.id, boot_id, container.root_pid, container.uptime_s)

    def is_followed_by(self, later: Identity, pids: frozenset[int]) -> bool:
        """Whether `later` can not be the same boot.

        A root process that still lives is the same boot, whatever was started beside it since.
        """
        return (
            _differ(self.container_id, later.container_id)
            or _differ(self.boot_id, later.boot_id)
            or (self.root_pid is not None and bool(pids) and self.root_pid not in pids)
            or _shrank(self.uptime_s, later.uptime_s)
        )

    def filled(self, later: Identity) -> Identity:
        """The same boot, with what is known of it by now."""
        return Identity(
            later.container_id,
            later.boot_id or self.boot_id,
            self.root_pid or later.root_pid,
            self.uptime_s if later.uptime_s is None else later.uptime_s,
        )


@dataclass(frozen=True, slots=True)
class State:
    """Everything that is remembered. `alerts` stand now; `raised` are those that were told."""

    identity: Identity = Identity()
    away: bool = False
    grace_until_s: float = float("-inf")
    busy_since_s: float | None = None
    strikes: Mapping[str, tuple[Strike, ...]] = field(default_factory=dict)
    lost: tuple[Strike, ...] = ()
    foreign: Mapping[str, int] = field(default_factory=dict)
    blind: Mapping[str, int] = field(default_factory=dict)
    cards_seen: frozenset[str] = frozenset()
    asked: Asked | None = None
    failures: int = 0
    retry_at_s: float = float("-inf")
    breaker: Breaker = field(default_factory=Breaker)
    alerts: Mapping[str, str] = field(default_factory=dict)
    raised: frozenset[str] = frozenset()
    stood: Stood = field(default_factory=Stood)


def _differ(before: str | None, after: str | None) -> bool:
    return before is not None and after is not None and before != after


def _shrank(before_s: float | None, after_s: float | None) -> bool:
    return before_s is not None and after_s is not None and after_s < before_s
