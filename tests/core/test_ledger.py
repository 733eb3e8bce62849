"""The arithmetic of admission, as rules that hold after every step."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sidecar.ledger import Ledger

PATIENCE_S = st.sampled_from([0.0, 2.0, 5.0])


class LedgerMachine(RuleBasedStateMachine):
    """Arrivals, departures and time in any order, against a plain list."""

    @initialize(
        slots=st.integers(1, 4), pages=st.integers(1, 20), max_queue=st.integers(0, 5), patience_s=PATIENCE_S
    )
    def build(self, slots: int, pages: int, max_queue: int, patience_s: float) -> None:
        self.ledger = Ledger(max_queue, slots, pages, patience_s)
        self.pages_of: dict[int, int | None] = {}
        self.started: list[int] = []
        self.now_s = 0.0
        self.at_the_head_s: dict[int, float] = {}

    def _note_started(self) -> None:
        fresh = [t for t in sorted(self.pages_of) if t not in self.started and self.ledger.is_running(t)]
        for ticket in fresh:
            for passed in self._waiting():
                if passed < ticket:
                    self._may_pass(ticket, passed)
        self.started += fresh
        head = next(iter(self._waiting()), None)
        if head is not None and self.pages_of[head] and self.ledger.running < self.ledger.slots:
            self.at_the_head_s.setdefault(head, self.now_s)

    def _may_pass(self, ticket: int, passed: int) -> None:
        """Smaller ones alone, and for as long as the patience of who is first and finds no pages."""
        wanted, taken = self.pages_of[passed], self.pages_of[ticket]
        assert wanted is not None and taken is not None and taken < wanted
        assert self.now_s - self.at_the_head_s.get(passed, self.now_s) < self.ledger.patience_s

    def _waiting(self) -> list[int]:
        return [t for t in sorted(self.pages_of) if not self.ledger.is_running(t)]

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def time_alone_lets_nobody_run(self) -> None:
        assert self.ledger.promote(self.now_s) == []

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
        promoted = self.ledger.promote(self.now_s)
        assert promoted == sorted(promoted)
        self._note_started()
        for ticket in self.ledger.surplus():
            assert not self.ledger.is_running(ticket)
            self.ledger.leave(ticket)
            del self.pages_of[ticket]

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
    def without_patience_first_come_first_served(self) -> None:
        assert self.ledger.patience_s or self.started == sorted(self.started)

    @invariant()
    def the_head_never_waits_without_reason(self) -> None:
        waiting = self._waiting()
        assert len(waiting) == self.ledger.waiting
        if waiting and (asked := self.pages_of[waiting[0]]) is not None:
            full = self.ledger.running == self.ledger.slots
            assert full or self.ledger.pages_reserved + asked > self.ledger.pages

    @invariant()
    def never_more_in_the_house_than_have_a_place(self) -> None:
        assert self.ledger.running + self.ledger.waiting <= self.ledger.slots + self.ledger.max_queue

    @invariant()
    def who_waits_for_pages_stands_in_the_queue(self) -> None:
        """Beyond it are those who have no price, and those behind them who may still be lucky."""
        waiting = self._waiting()
        if waiting and self.pages_of[waiting[0]] is not None:
            beyond = waiting[self.ledger.max_queue :]
            known = [t for t in waiting if self.pages_of[t] is None]
            assert all(known and t >= known[0] for t in beyond)


TestLedger = LedgerMachine.TestCase


def arrive(ledger: Ledger, pages: int, now_s: float = 0.0) -> int:
    """A ticket with its price, as far as it gets."""
    ticket = ledger.arrive()
    assert ticket
    ledger.price(ticket, pages)
    ledger.promote(now_s)
    return ticket


def test_who_is_not_priced_yet_is_not_overtaken() -> None:
    ledger = Ledger(max_queue=1, slots=1, pages=10)
    first, second = ledger.arrive(), ledger.arrive()
    assert first and second
    assert ledger.arrive() is None
    ledger.price(second, 1)
    assert ledger.promote(0) == []
    ledger.price(first, 1)
    assert ledger.promote(0) == [first]


def test_without_patience_a_large_request_is_not_overtaken() -> None:
    ledger = Ledger(max_queue=5, slots=2, pages=10)
    small, large, late = arrive(ledger, 6), arrive(ledger, 10), arrive(ledger, 1)
    assert not ledger.is_running(late)
    ledger.leave(small)
    assert ledger.promote(0) == [large]
    ledger.leave(large)
    assert ledger.promote(0) == [late]


def test_small_ones_pass_a_large_one_until_its_patience_ends() -> None:
    ledger = Ledger(max_queue=5, slots=4, pages=10, patience_s=2.0)
    first, large = arrive(ledger, 6, 0), arrive(ledger, 10, 1)
    same = arrive(ledger, 10, 1)
    in_time, late = arrive(ledger, 2, 2.9), arrive(ledger, 2, 3)
    assert [ledger.is_running(t) for t in (large, same, in_time, late)] == [False, False, True, False]
    ledger.leave(first)
    assert ledger.promote(4) == []
    ledger.leave(in_time)
    assert ledger.promote(5) == [large]
    ledger.leave(large)
    assert ledger.promote(6) == [same]
    ledger.leave(same)
    assert ledger.promote(7) == [late]


def test_patience_begins_when_only_pages_are_missing() -> None:
    """Ten seconds without a slot are no reason: from the first free slot on it counts, and for good."""
    ledger = Ledger(max_queue=5, slots=2, pages=10, patience_s=2.0)
    one, two, large = arrive(ledger, 5), arrive(ledger, 1), arrive(ledger, 10)
    small = [arrive(ledger, 1) for _ in range(2)]
    ledger.leave(two)
    assert ledger.promote(10) == small[:1]
    ledger.leave(small[0])
    assert ledger.promote(11.5) == small[1:]
    ledger.leave(small[1])
    late = arrive(ledger, 1, 12)
    assert not ledger.is_running(late)
    ledger.leave(one)
    assert ledger.promote(13) == [large]


def test_nobody_passes_who_has_no_price() -> None:
    ledger = Ledger(max_queue=5, slots=4, pages=10, patience_s=2.0)
    arrive(ledger, 6)
    large, unknown = arrive(ledger, 10), ledger.arrive()
    assert unknown
    small = arrive(ledger, 1)
    assert not ledger.is_running(small)
    ledger.price(unknown, 9)
    assert ledger.promote(1) == [small]
    assert not ledger.is_running(large)


def test_a_full_queue_keeps_who_may_still_pass() -> None:
    """The last one stands beyond the queue only as long as the price before it is not known."""
    ledger = Ledger(max_queue=1, slots=4, pages=10, patience_s=2.0)
    arrive(ledger, 6)
    large, unknown, small = ledger.arrive(), ledger.arrive(), ledger.arrive()
    assert large and unknown and small
    ledger.price(small, 1)
    ledger.price(large, 10)
    assert (ledger.promote(0), ledger.surplus()) == ([], [])
    ledger.price(unknown, 9)
    assert (ledger.promote(0), ledger.surplus()) == ([small], [unknown])


@dataclass
class Stay:
    """One request of a made-up day: when it came, what it takes, how long it stays, when it began."""

    arrives_s: float
    pages: int
    stays_s: float
    starts_s: float | None = None
    first_s: float | None = None

    @property
    def ends_s(self) -> float:
        assert self.starts_s is not None
        return self.starts_s + self.stays_s


def a_day(ledger: Ledger, stays: list[Stay]) -> None:
    """Everybody comes and leaves at the right time; filled in is when each starts.

    And `first_s`: since when one is the oldest of those who wait, while a slot is free.
    """
    ticket_of: dict[int, Stay] = {}
    coming = sorted(stays, key=lambda stay: stay.arrives_s)
    while coming or ledger.running:
        ends = {t: stay.ends_s for t, stay in ticket_of.items() if ledger.is_running(t)}
        leaver = min(ends, key=lambda t: ends[t]) if ends else None
        if leaver is not None and (not coming or ends[leaver] <= coming[0].arrives_s):
            now_s = ends[leaver]
            ledger.leave(leaver)
            del ticket_of[leaver]
        else:
            stay = coming.pop(0)
            now_s = stay.arrives_s
            ticket = ledger.arrive()
            assert ticket is not None
            ticket_of[ticket] = stay
            ledger.price(ticket, stay.pages)
        for ticket in ledger.promote(now_s):
            ticket_of[ticket].starts_s = now_s
        head = next((stay for _, stay in sorted(ticket_of.items()) if stay.starts_s is None), None)
        if head is not None and head.first_s is None and ledger.running < ledger.slots:
            head.first_s = now_s


STAYS = st.lists(
    st.builds(
        Stay,
        arrives_s=st.integers(0, 40).map(lambda n: n / 2),
        pages=st.sampled_from([1, 1, 1, 2, 3, 9, 10]),
        stays_s=st.integers(1, 12).map(lambda n: n / 2),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=300)
@given(STAYS, st.integers(1, 6), PATIENCE_S)
def test_nobody_starves(stays: list[Stay], slots: int, patience_s: float) -> None:
    """Who is first and finds no pages starts once those have left who run when its patience ends."""
    a_day(Ledger(len(stays), slots, 10, patience_s), stays)
    for stay in stays:
        assert stay.starts_s is not None
        if stay.first_s is not None:
            over_s = stay.first_s + patience_s
            those_then = [s.ends_s for s in stays if s.starts_s is not None and s.starts_s <= over_s]
            assert stay.starts_s <= max([over_s, *those_then])


@pytest.mark.parametrize(("patience_s", "large_starts_s"), [(0.0, 5.0), (2.0, 6.5), (1000.0, 55.0)])
def test_small_ones_that_keep_coming(patience_s: float, large_starts_s: float) -> None:
    """One every half second for 50 s, each staying 5 s: without an end of patience the large one is last."""
    small = [Stay(n / 2, 1, 5.0) for n in range(101)]
    large = Stay(0.0, 10, 1.0)
    a_day(Ledger(200, 100, 10, patience_s), [small[0], large, *small[1:]])
    assert large.starts_s == large_starts_s


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
