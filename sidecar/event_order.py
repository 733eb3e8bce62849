"""The order in which an engine's events may come. Pure.

Started, then any number of Delta, one Finished for each choice, then Done
"""

from __future__ import annotations

from sidecar.errors import EngineFault
from sidecar.generation import Delta, Event, Finished, Started


class EventOrder:
    """The engine's promise about the order of events, checked one event at a time."""

    def __init__(self, choices: int) -> None:
        self._choices = choices
        self._open: set[int] = set()
        self._started = False
        self._done = False

    def accept(self, event: Event) -> None:
        """Take the next event; raises EngineFault when it may not come now."""
        if isinstance(event, Delta) and event.choice in self._open:
            return  # nearly every event there is
        if (broken := self._broken_by(event)) is not None:
            raise EngineFault(f"The engine broke its protocol: {broken}.")
        if isinstance(event, Started):
            self._started, self._open = True, set(range(self._choices))
        elif isinstance(event, Finished):
            self._open.discard(event.choice)
        else:
            self._done = True

    def end(self) -> None:
        """The stream is over; raises EngineFault when it is not complete."""
        if not self._done:
            raise EngineFault("The engine broke its protocol: the engine's answer ended early.")

    def _broken_by(self, event: Event) -> str | None:
        if isinstance(event, Started):
            return "Started twice" if self._started else None
        if not self._started or self._done:
            return f"{type(event).__name__} out of place"
        if isinstance(event, Delta):
            return "text for a choice that is not open"
        if isinstance(event, Finished):
            return None if event.choice in self._open else "a choice finished twice"
        return "Done before every choice was finished" if self._open else None
