"""Who takes part in the next step. Pure.

A step is one pass of the model over some tokens of some sequences. Those that generate take part
with their one new token, always: memory was reserved for them, so nobody is ever preempted. What
is left of the token budget goes to prompts, oldest first, in chunks, so that a long prompt
neither waits for a pause nor stops the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# However many sequences generate, a prompt that waits moves on by this much each step.
MIN_PREFILL_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Position:
    """One sequence: `computed` of its `known` tokens are in the KV memory."""

    key: int
    computed: int
    known: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Compute `count` tokens of sequence `key`, from `start`. `last`: its logits are wanted."""

    key: int
    start: int
    count: int
    last: bool


def schedule(sequences: Iterable[Position], budget_tokens: int) -> list[Chunk]:
    """The next step's chunks, in the given order, each sequence at most once.

    Sequences with nothing left to compute are left out. The sum of the counts is at most
    `max(budget_tokens, generating + MIN_PREFILL_TOKENS)`.
    """
    waiting = [p for p in sequences if p.known > p.computed]
    generating = sum(p.known - p.computed == 1 for p in waiting)
    left = max(budget_tokens - generating, MIN_PREFILL_TOKENS)
    chunks = []
    for position in waiting:
        missing = position.known - position.computed
        count = missing if missing == 1 else min(missing, left)
        if count == 0:
            continue
        left -= 0 if missing == 1 else count
        chunks.append(Chunk(position.key, position.computed, count, count == missing))
    return chunks
