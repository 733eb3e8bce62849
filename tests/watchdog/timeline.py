"""A virtual clock for `decide()`: looks in, decisions out, 60 s apart and in no time at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from watchdog.decision import Decision, Restart, accepted, decide, second_look
from watchdog.observation import Card, Container, Look, Observation, Report, Target, Unknown
from watchdog.state import Limits, State

GPU = "GPU-0"
HUNG = Unknown("probe_hung", "nvidia-smi hangs")
LOST = Unknown("gpu_lost", "Failed to initialize NVML: Unknown Error")
OVER, UNDER = 10800.0, 9000.0


def container(boot: int = 1, state: str = "running", **more: object) -> Container:
    """The container in its `boot`th boot, known by the host's process id."""
    found = Container("c1", "llm-sidecar", state, root_pid=100 * boot, pids=frozenset({100 * boot}))
    return replace(found, **more)


def look(used: float | Unknown | None, own: float | None = None) -> Look:
    """One card."""
    if isinstance(used, Unknown):
        return used
    return HUNG if used is None else {GPU: Card(used, 24576.0, own, "the driver" if own else "")}


@dataclass
class Timeline:
    """Feeds looks to `decide` and plays the part of Docker: a restart is a new boot one look later."""

    limits: Limits = field(default_factory=Limits)
    state: State = field(default_factory=State)
    now_s: float = 0.0
    boot: int = 1
    restarts: list[int] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    effective: bool = True

    def see(self, seen: Look, target: Target | None = None, report: Report | None = None) -> Decision:
        """One tick, with the second look the same as the first."""
        found = Observation(self.now_s, target or container(self.boot), seen, report)
        self.state, decision = decide(self.limits, self.state, found)
        self.decisions.append(decision)
        if isinstance(decision, Restart):
            self.state, still = second_look(self.limits, self.state, decision, found)
            if isinstance(still, Restart):
                self.restarts.append(len(self.decisions))
                self.state = accepted(self.limits, self.state, self.now_s)
                self.boot += self.effective
        self.now_s += self.limits.interval_s
        return decision

    def play(self, pattern: str) -> list[int]:
        """`O` over, `U` under, `?` unknown, `L` lost, `N` not running, `B` over in a new boot,
        `W` not there. Returns the ticks, from 1, at which it restarted."""
        for letter in pattern:
            self.boot += letter == "B"
            steps: dict[str, Callable[[], Decision]] = {
                "O": lambda: self.see(look(OVER)),
                "B": lambda: self.see(look(OVER)),
                "U": lambda: self.see(look(UNDER)),
                "?": lambda: self.see(look(None)),
                "L": lambda: self.see(LOST),
                "N": lambda: self.see(look(None), container(self.boot, "exited")),
                "W": lambda: self.see(look(None), Unknown("missing", "no container")),
            }
            steps[letter]()
        return self.restarts

    def kinds(self) -> list[str]:
        """The kinds of alerts that were told, in order."""
        return [getattr(decision, "kind", "") for decision in self.decisions if hasattr(decision, "kind")]


def constant(timeline: Timeline, used: float | None, ticks: int) -> list[float]:
    """The times, in seconds, of all restarts under the same reading for ever."""
    times = []
    for _ in range(ticks):
        before, at_s = len(timeline.restarts), timeline.now_s
        timeline.see(look(used))
        if len(timeline.restarts) > before:
            times.append(at_s)
    return times


def most_within(times: Iterable[float], window_s: float) -> int:
    """The most events in any window of that length."""

    def counts(sorted_times: list[float]) -> Iterator[int]:
        for first in sorted_times:
            yield sum(first <= at_s <= first + window_s for at_s in sorted_times)

    return max(counts(sorted(times)), default=0)
