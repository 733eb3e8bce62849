"""Who runs and who waits: the arithmetic of admission, without a clock and without tasks.

First come, first served, with one exception that has an end. Who is reached in order while a slot
is free and its own pages are not is *blocked* from that moment on until it runs; before it, all run
already or are blocked themselves. Later and smaller ones may pass it for `patience_s`, and nobody
afterwards: then only those who run at that moment are before it, and when they have left, the house
is empty and it fits. So a large request can not starve behind small ones, pages do not lie idle
before it without need, and equal prices never change their order. A patience of 0 is strict order.

Who arrives has a place before anybody knows how many pages it takes; `price` tells, in any order.
Until then it runs never and holds up those behind it, so that the order of arrival stays.
"""

from __future__ import annotations

from itertools import takewhile


class Ledger:
    """Slots and pages, and the order of those who want them. Tickets are plain numbers."""

    def __init__(self, max_queue: int, slots: int = 0, pages: int = 0, patience_s: float = 0.0) -> None:
        self.max_queue = max_queue
        self.slots = slots
        self.pages = pages
        self.patience_s = patience_s
        self._running: dict[int, int] = {}
        self._waiting: dict[int, int | None] = {}
        self._blocked_s: dict[int, float] = {}
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
        free_slots = 0 if self._is_held_up() else max(0, self.slots - len(self._running))
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

        To be asked after `promote`, and to leave. Who stands behind one without a price may still run.
        """
        if not self._is_held_up():
            return []
        decided = takewhile(lambda ticket: self._waiting[ticket] is not None, self._waiting)
        return list(decided)[self.max_queue :]

    def is_running(self, ticket: int) -> bool:
        """Whether the ticket holds its slot."""
        return ticket in self._running

    def leave(self, ticket: int) -> None:
        """Give back the slot or the place in the queue. Leaving twice is harmless."""
        self._running.pop(ticket, None)
        self._waiting.pop(ticket, None)
        self._blocked_s.pop(ticket, None)

    def promote(self, now_s: float) -> list[int]:
        """Let run who fits and passes nobody any longer than allowed; who now runs, in order of arrival.

        `now_s` is any clock that never goes back. To be called after every other change: time alone
        lets nobody run, it only ends the patience of those who are blocked.
        """
        promoted = []
        left = self.pages - self.pages_reserved
        for ticket, pages in self._waiting.items():
            if pages is None or len(self._running) >= self.slots:
                break
            if pages <= left:
                left -= pages
                self._running[ticket] = pages
                promoted.append(ticket)
            elif not self._may_be_passed(ticket, now_s):
                break
        for ticket in promoted:
            del self._waiting[ticket]
            self._blocked_s.pop(ticket, None)
        return promoted

    def hopeless(self) -> list[int]:
        """Waiting tickets that even an empty house can not take, after a resize."""
        return [t for t, pages in self._waiting.items() if pages is not None and not self.can_ever_fit(pages)]

    def _may_be_passed(self, ticket: int, now_s: float) -> bool:
        return now_s - self._blocked_s.setdefault(ticket, now_s) < self.patience_s

    def _is_held_up(self) -> bool:
        head = next(iter(self._waiting.values()), None)
        return head is not None and not self._fits(head)

    def _fits(self, pages: int) -> bool:
        free_slot = len(self._running) < self.slots
        return free_slot and self.pages_reserved + pages <= self.pages
