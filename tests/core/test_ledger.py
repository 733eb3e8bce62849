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
        self.pages_of: dict[int, int] = {}
        self.started: list[int] = []

    def _note_started(self) -> None:
        for ticket in sorted(self.pages_of):
            if ticket not in self.started and self.ledger.is_running(ticket):
                self.started.append(ticket)

    @rule(pages=st.integers(1, 20))
    def arrive(self, pages: int) -> None:
        if not self.ledger.can_ever_fit(pages):
            return
        waiting = self.ledger.waiting
        ticket = self.ledger.arrive(pages)
        if ticket is None:
            assert waiting == self.ledger.max_queue
            return
        self.pages_of[ticket] = pages
        self._note_started()

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if not self.pages_of:
            return
        ticket = data.draw(st.sampled_from(sorted(self.pages_of)))
        del self.pages_of[ticket]
        self.ledger.leave(ticket)
        self.ledger.promote()
        self._note_started()

    @invariant()
    def never_more_than_there_is(self) -> None:
        running = [t for t in self.pages_of if self.ledger.is_running(t)]
        assert len(running) == self.ledger.running <= self.ledger.slots
        assert sum(self.pages_of[t] for t in running) == self.ledger.pages_reserved
        assert self.ledger.pages_reserved <= self.ledger.pages

    @invariant()
    def first_come_first_served(self) -> None:
        assert self.started == sorted(self.started)

    @invariant()
    def the_head_never_waits_without_reason(self) -> None:
        waiting = [t for t in sorted(self.pages_of) if not self.ledger.is_running(t)]
        assert len(waiting) == self.ledger.waiting <= self.ledger.max_queue
        if waiting:
            full = self.ledger.running == self.ledger.slots
            pages = self.ledger.pages_reserved + self.pages_of[waiting[0]]
            assert full or pages > self.ledger.pages


TestLedger = LedgerMachine.TestCase


def test_a_large_request_is_not_overtaken() -> None:
    ledger = Ledger(max_queue=5, slots=2, pages=10)
    small, large, late = ledger.arrive(6), ledger.arrive(10), ledger.arrive(1)
    assert small and large and late
    assert not ledger.is_running(late)
    ledger.leave(small)
    assert ledger.promote() == [large]
    ledger.leave(large)
    assert ledger.promote() == [late]


def test_leaving_twice_is_harmless() -> None:
    ledger = Ledger(max_queue=0, slots=1, pages=1)
    ticket = ledger.arrive(1)
    assert ticket
    ledger.leave(ticket)
    ledger.leave(ticket)
    assert (ledger.running, ledger.pages_reserved) == (0, 0)


@given(st.integers(0, 10), st.integers(0, 10))
def test_hopeless_after_a_resize(before: int, after: int) -> None:
    ledger = Ledger(max_queue=5, slots=1, pages=10)
    ledger.arrive(10)
    waiting = ledger.arrive(before)
    ledger.resize(1, after)
    assert ledger.hopeless() == ([waiting] if before > after else [])
