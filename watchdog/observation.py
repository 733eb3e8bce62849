"""What can be known at one moment, as frozen values. Pure vocabulary: no clock, no Docker, no driver.

Data and health stay apart: what could not be read is an `Unknown` with its cause, never a number.
Times are seconds of a clock that only moves forward; where it begins means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["unknown", "loading", "ready", "idle", "draining", "failing"]

_LOADING = frozenset({"start", "restart", "download", "quantize", "load", "kernels", "warmup"})
_STEADY: dict[str, Phase] = {"unloaded": "idle", "draining": "draining", "failed": "failing"}
_HEALTH: dict[str, Phase] = {"starting": "loading", "healthy": "ready", "unhealthy": "failing"}


@dataclass(frozen=True, slots=True)
class Unknown:
    """No answer. `cause` is stable and for programs, `text` says it to people."""

    cause: str
    text: str


@dataclass(frozen=True, slots=True)
class Card:
    """One graphics card that could be read.

    `own_mib` is the sidecar's share where it can be told from the rest, and `witness` who says so;
    `rest` names what holds the remainder.
    """

    used_mib: float
    total_mib: float | None = None
    own_mib: float | None = None
    witness: str = ""
    rest: str = ""


Reading = Card | Unknown
# One reading for each card by its UUID, since the order of cards is nobody's promise.
Look = Mapping[str, Reading] | Unknown


@dataclass(frozen=True, slots=True)
class Container:
    """The one container that is watched. `pids` are the host's numbers, `root_pid` the first process."""

    id: str
    name: str
    state: str
    health: str = ""
    uptime_s: float | None = None
    root_pid: int | None = None
    pids: frozenset[int] = frozenset()


Target = Container | Unknown


@dataclass(frozen=True, slots=True)
class Drain:
    """How the boot before this one ended, as the sidecar wrote it down."""

    boot_id: str
    finished: int
    cut: int


@dataclass(frozen=True, slots=True)
class Report:
    """What the sidecar says of itself. `age_s` is how old its own figure is.

    `takes` are the asks that it understands, none where it is older than they are.
    """

    boot_id: str
    phase: str
    own_mib: float | None = None
    age_s: float | None = None
    running: int = 0
    waiting: int = 0
    last_drain: Drain | None = None
    takes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that one look found."""

    now_s: float
    target: Target
    look: Look = field(default_factory=dict)
    report: Report | None = None

    @property
    def running(self) -> Container | None:
        """The container, if it is one that may be restarted."""
        found = self.target
        return found if isinstance(found, Container) and found.state == "running" else None

    @property
    def cards(self) -> dict[str, Card]:
        """The cards that could be read."""
        if isinstance(self.look, Unknown):
            return {}
        return {gpu: card for gpu, card in self.look.items() if isinstance(card, Card)}

    @property
    def unknowns(self) -> tuple[Unknown, ...]:
        """Why the rest could not be."""
        if isinstance(self.look, Unknown):
            return (self.look,)
        return tuple(reading for reading in self.look.values() if isinstance(reading, Unknown))

    @property
    def phase(self) -> Phase:
        """What the sidecar is doing: by its own word, else by its health check, else unknown."""
        if self.report is None:
            return _HEALTH.get(self.running.health, "unknown") if self.running else "unknown"
        if self.report.phase in _LOADING:
            return "loading"
        if self.report.phase == "ready":
            return "ready" if self.report.running or self.report.waiting else "idle"
        return _STEADY.get(self.report.phase, "unknown")
