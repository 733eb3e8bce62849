"""Who runs and who waits: the arithmetic of admission, without a clock and without tasks.

Strictly first come, first served. The head of the queue runs as soon as one slot and its own
pages are free, and nobody overtakes it: a large request can not starve behind small ones.
"""

from __future__ import annotations


class Ledger:
    """Slots and pages, and the order of those who want them. Tickets are plain numbers."""

    def __init__(self, max_queue: int, slots: int = 0, pages: int = 0) -> None:
        self.max_queue = max_queue
        self.slots = slots
        self.pages = pages
        self._running: dict[int, int] = {}
        self._waiting: dict[int, int] = {}
        self._issued = 0

    @property
    def running(self) -> int:
        """How many hold a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many stand in the queue."""
        return len(self._waiting)

    @property
    def pages_reserved(self) -> int:
        """Pages held by those who run."""
        return sum(self._running.values())

    def resize(self, slots: int, pages: int) -> None:
        """A new total. Those who run keep what they have, even above a smaller total."""
        self.slots, self.pages = slots, pages

    def can_ever_fit(self, pages: int) -> bool:
        """Whether an empty house would have room for it."""
        return self.slots > 0 and pages <= self.pages

    def is_full(self) -> bool:
        """Whether a new ticket, however small, would be refused."""
        free_slot = not self._waiting and len(self._running) < self.slots
        return not free_slot and len(self._waiting) >= self.max_queue

    def arrive(self, pages: int) -> int | None:
        """A ticket that runs or waits; None when the queue is full."""
        must_wait = bool(self._waiting) or not self._fits(pages)
        if must_wait and len(self._waiting) >= self.max_queue:
            return None
        self._issued += 1
        self._waiting[self._issued] = pages
        if not must_wait:
            self.promote()
        return self._issued

    def is_running(self, ticket: int) -> bool:
        """Whether the ticket holds its slot."""
        return ticket in self._running

    def leave(self, ticket: int) -> None:
        """Give back the slot or the place in the queue. Leaving twice is harmless."""
        self._running.pop(ticket, None)
        self._waiting.pop(ticket, None)

    def promote(self) -> list[int]:
        """Let the queue's head run while it fits; the tickets that now run, in order."""
        promoted = []
        while self._waiting:
            ticket, pages = next(iter(self._waiting.items()))
            if not self._fits(pages):
                break
            del self._waiting[ticket]
            self._running[ticket] = pages
            promoted.append(ticket)
        return promoted

    def hopeless(self) -> list[int]:
        """Waiting tickets that even an empty house can not take, after a resize."""
        return [t for t, pages in self._waiting.items() if not self.can_ever_fit(pages)]

    def _fits(self, pages: int) -> bool:
        free_slot = len(self._running) < self.slots
        return free_slot and self.pages_reserved + pages <= self.pages
