"""What the guard knows of itself, counted by the loop and read by whoever asks. No names of metrics."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from watchdog.decision import NOTHING, Decision, Hold
from watchdog.observation import Card, Container, Observation, Unknown
from watchdog.state import Limits, State

# With these, nobody is guarded: a container that looks healthy would be a lie.
UNHEALTHY = frozenset({"blind", "restart_failed", "ambiguous_container", "limit_above_card"})


@dataclass(frozen=True, slots=True)
class Health:
    """`ok` is what the health check says, `status` one word for people, `message` the rest."""

    ok: bool
    status: str
    message: str


@dataclass
class Tally:
    """Numbers since the start. One writer, the loop; readers take the lock."""

    limits: Limits
    clock: Callable[[], float]
    wall: Callable[[], float]
    dry_run: bool = False
    deadline_s: float = 10.0
    state: State = field(default_factory=State)
    cards: dict[str, Card] = field(default_factory=dict)
    reason: str = "starting"
    target: str = "starting"
    readings: Counter[str] = field(default_factory=Counter)
    restarts: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    errors: int = 0
    ticks: int = 0
    blind_s: float = 0.0
    last_reading_wall_s: float | None = None
    last_reading_s: float | None = None
    tick_s: float | None = None
    restarting: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """The first tick is awaited from now on."""
        self.tick_s = self.clock()

    def saw(self, seen: Observation, state: State, decision: Decision) -> None:
        """One tick is over."""
        with self.lock:
            now_s = self.clock()
            if state.blind and self.tick_s is not None:
                self.blind_s += now_s - self.tick_s
            self.tick_s, self.ticks, self.state = now_s, self.ticks + 1, state
            self.target = _target(seen)
            self.reason = decision.reason if isinstance(decision, Hold) else self.reason
            for reading in _readings(seen):
                self.readings[reading] += 1
            if seen.cards:
                self.last_reading_s, self.last_reading_wall_s = now_s, self.wall()
                self.cards = seen.cards
            else:
                self.cards = {}

    def acted(self, outcome: str, cause: str) -> None:
        """A restart was tried: `done`, `refused`, `unsure`, or `pretended` in a dry run."""
        with self.lock:
            self.outcomes[outcome] += 1
            if outcome == "done":
                self.restarts[cause] += 1

    def health(self) -> Health:
        """Healthy while it looks and sees, or has nothing to look at; not while it is blind or stuck."""
        with self.lock:
            age_s = self.clock() - (self.tick_s or 0.0)
            allowed_s = 3 * self.limits.interval_s + self.deadline_s
            allowed_s += 2 * self.limits.settle_s if self.restarting else 0.0
            if age_s > allowed_s:
                return Health(False, "hung", f"the last look is {age_s:.0f} s old")
            bad = [kind for kind in self.state.alerts if kind in UNHEALTHY]
            if bad:
                return Health(False, bad[0], self.state.alerts[bad[0]])
            status = NOTHING if self.reason.startswith(NOTHING) else self.target
            return Health(True, status, self.reason.removeprefix(f"{status}: "))


def _target(seen: Observation) -> str:
    if isinstance(seen.target, Container):
        return "watching" if seen.target.state == "running" else "waiting"
    return {"missing": "waiting", "ambiguous": "ambiguous"}.get(seen.target.cause, "no engine")


def _readings(seen: Observation) -> list[str]:
    """What each reading was: `known`, or the cause of the Unknown."""
    if seen.running is None:
        return []
    found = [seen.look] if isinstance(seen.look, Unknown) else list(seen.look.values())
    return [reading.cause if isinstance(reading, Unknown) else "known" for reading in found]
