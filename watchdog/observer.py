"""One look at everything: who runs, what it says of itself, what the cards hold, and whose that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from watchdog.attribution import attributed, fresh_s
from watchdog.observation import Observation, Report, Target
from watchdog.probe import Probe
from watchdog.readers import Reader
from watchdog.rungs import LOWEST
from watchdog.state import Limits

# Two calls to the engine, each of which has 5 s of its own.
FIND_S = 8.0


class Observer:
    """Puts a look together. Takes at most the sum of its parts' deadlines, and never raises."""

    def __init__(
        self,
        find: Callable[[], Target],
        reader: Reader,
        report: Callable[[], Report | None],
        limits: Limits,
        clock: Callable[[], float],
        probe: Probe,
    ) -> None:
        self._find = find
        self._reader = reader
        self._report = report
        self._limits = limits
        self._clock = clock
        self._probe = probe

    def look(self) -> Observation:
        """Everything, now. The cards are only asked while the container runs."""
        found = self._probe.ask(self._find, FIND_S)
        seen = Observation(self._clock(), found)
        container = seen.running
        if container is None:
            return seen
        report = self._report()
        seen = replace(seen, look=self._reader.look(container), report=report)
        if any(card.used_mib > self._limits.limit_mib * LOWEST for card in seen.cards.values()):
            # Whose memory it is matters only near the limit, and asking costs a second call.
            processes = self._reader.processes(container)
            age_s = fresh_s(self._limits.interval_s)
            seen = replace(seen, look=attributed(seen.look, processes, container.pids, report, age_s))
        return seen
