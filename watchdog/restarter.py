"""The one act: restart the container, gently first.

Docker sends SIGTERM, the sidecar finishes what it can, and after the timeout Docker kills. The call
is `restart` and not stop and start: whatever becomes of this program in between, Docker starts the
container again.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Event

from watchdog.engine import RESTART_READ_MARGIN_S, Engine, EngineFailure
from watchdog.observation import Container, Unknown
from watchdog.probe import Probe

# On SIGTERM an ongoing call is waited for this long: 10 s are promised to whoever stops us. Docker
# carries the restart to its end without us.
PATIENCE_S = 6.0


@dataclass(frozen=True, slots=True)
class Done:
    """The daemon answered 204."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The daemon said no, or was not there: nothing has happened."""

    text: str


@dataclass(frozen=True, slots=True)
class Unsure:
    """It may have happened: who runs now has to be looked at first."""

    text: str


Outcome = Done | Refused | Unsure

# Not one of these has reached the container. A 500 has perhaps stopped it, and not started it again.
_NOTHING_HAPPENED = frozenset(
    {
        "docker_unreachable",
        "docker_permission",
        "docker_forbidden",
        "container_not_found",
        "container_conflict",
    }
)


class Restarter:
    """Restarts one container, with a timeout that is longer than the sidecar's drain."""

    def __init__(self, engine: Engine, timeout_s: float, stop: Event) -> None:
        self._engine = engine
        self._timeout_s = timeout_s
        self._probe = Probe("docker restart", stop, PATIENCE_S)

    def restart(self, container: Container) -> Outcome:
        """Ask Docker and wait for its answer. Never raises."""
        answer = self._probe.ask(lambda: self._call(container), self._timeout_s + 2 * RESTART_READ_MARGIN_S)
        return Unsure(answer.text) if isinstance(answer, Unknown) else answer

    def _call(self, container: Container) -> Outcome:
        try:
            self._engine.restart(container.name, self._timeout_s)
        except EngineFailure as failure:
            nothing = failure.cause in _NOTHING_HAPPENED
            return Refused(failure.text) if nothing else Unsure(failure.text)
        return Done()
