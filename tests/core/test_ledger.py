"""The arithmetic of admission, as rules that hold after every step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sidecar.ledger import Ledger


class LedgerMachine(RuleBasedStateMachine):
    """Arrivals and departures in any order, against a plain list."""

    @initialize(slots=st.integers(1, 4), pages=st.integers(1, 20), max_queue=st.integers(0, 5))
    def build(self, slots: int, pages: int, max_queue: int) -> None:
        self.ledger = Ledger(max_queue, slots, pages)
        self.pages_of: dict[int, int | None] = {}
        self.started: list[int] = []

    def _note_started(self) -> None:
        for ticket in sorted(self.pages_of):
            if ticket not in self.started and self.ledger.is_running(ticket):
                self.started.append(ticket)

    @rule()
    def arrive(self) -> None:
        full = self.ledger.is_full()
        ticket = self.ledger.arrive()
        assert (ticket is None) is full
        if ticket is None:
            assert self.ledger.waiting >= self.ledger.max_queue
        else:
            self.pages_of[ticket] = None

    @rule(pages=st.integers(1, 20), data=st.data())
    def price(self, pages: int, data: st.DataObject) -> None:
        unpriced = sorted(t for t, known in self.pages_of.items() if known is None)
        if not unpriced or not self.ledger.can_ever_fit(pages):
            return
        ticket = data.draw(st.sampled_from(unpriced))
        self.ledger.price(ticket, pages)
        self.pages_of[ticket] = pages
        self._settle()

    def _settle(self) -> None:
        self.ledger.promote()
        for ticket in self.ledger.surplus():
            assert not self.ledger.is_running(ticket)
            self.ledger.leave(ticket)
            del self.pages_of[ticket]
        self._note_started()

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if not self.pages_of:
            return
        ticket = data.draw(st.sampled_from(sorted(self.pages_of)))
        del self.pages_of[ticket]
        self.ledger.leave(ticket)
        self._settle()

    @invariant()
    def never_more_than_there_is(self) -> None:
        running = [t for t in self.pages_of if self.ledger.is_running(t)]
        assert len(running) == self.ledger.running <= self.ledger.slots
        assert sum(self.pages_of[t] or 0 for t in running) == self.ledger.pages_reserved
        assert self.ledger.pages_reserved <= self.ledger.pages

    @invariant()
    def first_come_first_served(self) -> None:
        assert self.started == sorted(self.started)

    @invariant()
    def the_head_never_waits_without_reason(self) -> None:
        waiting = [t for t in sorted(self.pages_of) if not self.ledger.is_running(t)]
        assert len(waiting) == self.ledger.waiting
        if waiting and (asked := self.pages_of[waiting[0]]) is not None:
            full = self.ledger.running == self.ledger.slots
            assert full or self.ledger.pages_reserved + asked > self.ledger.pages

    @invariant()
    def never_more_in_the_house_than_have_a_place(self) -> None:
        assert self.ledger.running + self.ledger.waiting <= self.ledger.slots + self.ledger.max_queue

    @invariant()
    def who_waits_for_pages_stands_in_the_queue(self) -> None:
        waiting = [t for t in sorted(self.pages_of) if not self.ledger.is_running(t)]
        if waiting and self.pages_of[waiting[0]] is not None:
            beyond = waiting[self.ledger.max_queue :]
            assert all(self.pages_of[t] is None for t in beyond)


TestLedger = LedgerMachine.TestCase


def arrive(ledger: Ledger, pages: int) -> int:
    """A ticket with its price, as far as it gets."""
    ticket = ledger.arrive()
    assert ticket
    ledger.price(ticket, pages)
    ledger.promote()
    return ticket


def test_who_is_not_priced_yet_is_not_overtaken() -> None:
    ledger = Ledger(max_queue=1, slots=1, pages=10)
    first, second = ledger.arrive(), ledger.arrive()
    assert first and second
    assert ledger.arrive() is None
    ledger.price(second, 1)
    assert ledger.promote() == []
    ledger.price(first, 1)
    assert ledger.promote() == [first]


def test_a_large_request_is_not_overtaken() -> None:
    ledger = Ledger(max_queue=5, slots=2, pages=10)
    small, large, late = arrive(ledger, 6), arrive(ledger, 10), arrive(ledger, 1)
    assert not ledger.is_running(late)
    ledger.leave(small)
    assert ledger.promote() == [large]
    ledger.leave(large)
    assert ledger.promote() == [late]


def test_leaving_twice_is_harmless() -> None:
    ledger = Ledger(max_queue=0, slots=1, pages=1)
    ticket = arrive(ledger, 1)
    ledger.leave(ticket)
    ledger.leave(ticket)
    ledger.price(ticket, 1)
    assert (ledger.running, ledger.waiting, ledger.pages_reserved) == (0, 0, 0)


@given(st.integers(0, 10), st.integers(0, 10))
def test_hopeless_after_a_resize(before: int, after: int) -> None:
    ledger = Ledger(max_queue=5, slots=1, pages=10)
    arrive(ledger, 10)
    waiting = arrive(ledger, before)
    ledger.resize(1, after)
    assert ledger.hopeless() == ([waiting] if before > after else [])
