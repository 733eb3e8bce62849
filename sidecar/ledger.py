"""Who runs and who waits: the arithmetic of admission, without a clock and without tasks.

Strictly first come, first served. The head of the queue runs as soon as one slot and its own
pages are free, and nobody overtakes it: a large request can not starve behind small ones.

Who arrives has a place before anybody knows how many pages it takes; `price` tells, in any order.
Until then it runs never and holds up those behind it, so that the order of arrival stays.
"""

from __future__ import annotations


class Ledger:
    """Slots and pages, and the order of those who want them. Tickets are plain numbers."""

    def __init__(self, max_queue: int, slots: int = 0, pages: int = 0) -> None:
        self.max_queue = max_queue
        self.slots = slots
        self.pages = pages
        self._running: dict[int, int] = {}
        self._waiting: dict[int, int | None] = {}
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
        """Whether a new ticket, however small, would be refused.

        Beside the queue's own places, the free slots count: unless the head waits for pages, they
        are where the next tickets go.
        """
        free_slots = 0 if self._is_blocked() else max(0, self.slots - len(self._running))
        return len(self._waiting) >= self.max_queue + free_slots

    def arrive(self) -> int | None:
        """A ticket whose pages `price` tells later; None when the queue is full."""
        if self.is_full():
            return None
        self._issued += 1
        self._waiting[self._issued] = None
        return self._issued

    def price(self, ticket: int, pages: int) -> None:
        """What a waiting ticket takes; `promote` lets it run, `surplus` says who lost its place."""
        if ticket in self._waiting:
            self._waiting[ticket] = pages

    def surplus(self) -> list[int]:
        """Tickets that counted on a free slot and must wait for pages after all, where nobody may.

        To be asked after `promote`, and to leave.
        """
        if not self._is_blocked():
            return []
        return [t for t in list(self._waiting)[self.max_queue :] if self._waiting[t] is not None]

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
            if pages is None or not self._fits(pages):
                break
            del self._waiting[ticket]
            self._running[ticket] = pages
            promoted.append(ticket)
        return promoted

    def hopeless(self) -> list[int]:
        """Waiting tickets that even an empty house can not take, after a resize."""
        return [t for t, pages in self._waiting.items() if pages is not None and not self.can_ever_fit(pages)]

    def _is_blocked(self) -> bool:
        head = next(iter(self._waiting.values()), None)
        return head is not None and not self._fits(head)

    def _fits(self, pages: int) -> bool:
        free_slot = len(self._running) < self.slots
        return free_slot and self.pages_reserved + pages <= self.pages
