"""Whoever was admitted ends: ledger, pages and schedule together, as the gate and the worker use them."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.ledger import Ledger
from sidecar.worker.blocks import Blocks, Table
from sidecar.worker.schedule import Position, schedule

PAGE = 4
TOTAL = 12


@dataclass
class Asked:
    """A request: the longest answer that may come is paid for, the one that comes is `answer` tokens."""

    prompt: list[int]
    max_tokens: int
    answer: int
    table: Table | None = None
    ids: list[int] = field(default_factory=list)
    computed: int = 0

    @property
    def pages(self) -> int:
        """Its price: the last token is never computed."""
        return -(-(len(self.prompt) + self.max_tokens - 1) // PAGE)

    @property
    def over(self) -> bool:
        """Whether the answer is complete."""
        return len(self.ids) - len(self.prompt) >= min(self.answer, self.max_tokens)


ASKED = st.builds(
    Asked,
    prompt=st.lists(st.integers(0, 1), min_size=1, max_size=24),
    max_tokens=st.integers(1, 24),
    answer=st.integers(1, 24),
).filter(lambda asked: asked.pages <= TOTAL)


@settings(max_examples=150, deadline=None)
@given(st.lists(ASKED, min_size=1, max_size=20), st.integers(1, 6), st.sampled_from([0.0, 5.0]))
def test_nobody_who_was_admitted_is_ever_stopped_for_memory(
    requests: list[Asked], slots: int, patience_s: float
) -> None:
    """Each finds its pages when it begins, and has a token in every step once it generates, to the end."""
    ledger, blocks = Ledger(len(requests), slots, TOTAL, patience_s), Blocks(TOTAL, PAGE)
    running: dict[int, Asked] = {}
    by_ticket = {}
    for asked in requests:
        ticket = ledger.arrive()
        assert ticket is not None
        by_ticket[ticket] = asked
        ledger.price(ticket, asked.pages)
    step = 0
    while ledger.running or ledger.waiting:
        for ticket in ledger.promote(step):
            running[ticket] = begun(blocks, by_ticket[ticket])
        advance(blocks, running)
        for ticket in [t for t, asked in running.items() if asked.over]:
            end(blocks, running.pop(ticket))
            ledger.leave(ticket)
        step += 1
        assert blocks.used <= ledger.pages_reserved
    assert all(asked.over for asked in requests)
    assert blocks.used == 0


def begun(blocks: Blocks, asked: Asked) -> Asked:
    """What the loop does when a request begins: all pages at once. PoolExhausted would fail the test."""
    asked.table = blocks.open(asked.prompt, len(asked.prompt) + asked.max_tokens - 1)
    asked.ids, asked.computed = list(asked.prompt), asked.table.shared_tokens
    return asked


def advance(blocks: Blocks, running: dict[int, Asked]) -> None:
    """One step of everybody, with a budget that prompts must wait for."""
    chunks = schedule([Position(t, a.computed, len(a.ids)) for t, a in running.items()], budget_tokens=8)
    assert {t for t, a in running.items() if len(a.ids) > len(a.prompt)} <= {c.key for c in chunks if c.last}
    for chunk in chunks:
        asked = running[chunk.key]
        assert asked.table is not None
        asked.computed += chunk.count
        assert asked.computed <= PAGE * len(asked.table.pages)
        blocks.publish(asked.table, asked.ids, asked.computed)
        if chunk.last:
            asked.ids.append(len(asked.ids) % 2)


def end(blocks: Blocks, asked: Asked) -> None:
    """The pages go back."""
    assert asked.table is not None
    blocks.close(asked.table)
