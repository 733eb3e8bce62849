"""The order in which an engine's events may come. Pure.

Started, then any number of Delta, one Finished for each choice, then Done
"""

from __future__ import annotations

from sidecar.errors import EngineFault
from sidecar.generation import Delta, Event, Finished, Started


class EventOrder:
    """The engine's promise about the order of events, checked one event at a time."""

    def __init__(self, choices: int) -> None:
        self._open = set(range(choices))
        self._started = False
        self._done = False

    def accept(self, event: Event) -> None:
        """Take the next event; raises EngineFault when it may not come now."""
        if isinstance(event, Started):
            self._demand(not self._started, "Started twice")
            self._started = True
            return
        self._demand(self._started and not self._done, f"{type(event).__name__} out of place")
        if isinstance(event, Delta):
            self._demand(event.choice in self._open, "text for a choice that is not open")
        elif isinstance(event, Finished):
            self._demand(event.choice in self._open, "a choice finished twice")
            self._open.discard(event.choice)
        else:
            self._demand(not self._open, "Done before every choice was finished")
            self._done = True

    def end(self) -> None:
        """The stream is over; raises EngineFault when it is not complete."""
        self._demand(self._done, "the engine's answer ended early")

    @staticmethod
    def _demand(kept: bool, broken: str) -> None:
        if not kept:
            raise EngineFault(f"The engine broke its protocol: {broken}.")
