"""Training rows as batches of token ids: short rows sorted by length, long rows packed."""

from collections.abc import Iterator
from itertools import cycle
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from tools.embedded_model.text import SEED, long_rows, rows
from tools.embedded_model.tokens import (
    CONTEXT,
    END_OF_TEXT,
    VOCABULARY,
    Encoded,
    encode_all,
    packed,
    token_id,
)

ROWS = 130_000
LONG_ROWS = 3_000
LONGEST_SHORT = 420
BATCH_TOKENS = 3072
WINDOW = 1024
PACK = 1100
FIRST_WORD = 3  # the tokens before it end texts and turns

Batch = tuple[Tensor, Tensor]


def batch(encoded: list[Encoded]) -> Batch:
    """Ids padded on the right, and which of them are learned.

    Attention is causal, so that what stands on the right of a row can not change it.
    """
    width = max(len(ids) for ids, _ in encoded)
    ids = torch.zeros(len(encoded), width, dtype=torch.long)
    learned = torch.zeros(len(encoded), width, dtype=torch.bool)
    for at, (row, learn) in enumerate(encoded):
        ids[at, : len(row)] = torch.tensor(row)
        learned[at, : len(row)] = torch.tensor(learn)
    return ids, learned


def _by_length(window: list[Encoded]) -> Iterator[list[Encoded]]:
    group: list[Encoded] = []
    for row in sorted(window, key=lambda pair: len(pair[0])):
        if group and len(row[0]) * (len(group) + 1) > BATCH_TOKENS:
            yield group
            group = []
        group.append(row)
    yield group


def groups_by_length(encoded: list[Encoded], rng: Random) -> Iterator[list[Encoded]]:
    """Rows of about one length together, at most `BATCH_TOKENS` in each group."""
    for at in range(0, len(encoded), WINDOW):
        groups = list(_by_length(encoded[at : at + WINDOW]))
        rng.shuffle(groups)
        yield from groups


def _short_batches(encoded: list[Encoded], rng: Random) -> Iterator[Batch]:
    while True:
        rng.shuffle(encoded)
        yield from (batch(group) for group in groups_by_length(encoded, rng))


def _long_batches(short: list[Encoded], long: list[Encoded], end: int, rng: Random) -> Iterator[Batch]:
    def mixed() -> Iterator[Encoded]:
        for row in cycle(long):
            yield row
            yield from rng.sample(short, k=rng.randint(0, 8))

    for first in packed(mixed(), PACK, end):
        yield batch([first])


def _repeats(rng: Random) -> Batch:
    """Random tokens said twice, the second time learned.

    Nothing here can be known by heart, so that copying is the only way to be right; with the
    circuit of `induction` it is learned in about a hundred such steps.
    """
    length = rng.randint(4, 24)
    rows = []
    for _ in range(BATCH_TOKENS // (2 * length + 12)):
        before, between = (rng.choices(range(FIRST_WORD, VOCABULARY), k=k) for k in (6, 3))
        said = rng.sample(range(FIRST_WORD, VOCABULARY), k=length)
        ids = [*before[: rng.randint(0, 6)], *said, *between[: rng.randint(1, 3)], *said]
        rows.append((ids, [at > len(ids) - length for at in range(len(ids))]))
    return batch(rows)


class Batches:
    """The batches of every training step, the same for the same seed."""

    def __init__(self, tokenizer: Tokenizer, steps: int) -> None:
        end = token_id(tokenizer, END_OF_TEXT)
        short = encode_all(tokenizer, rows(ROWS), LONGEST_SHORT)
        long = encode_all(tokenizer, long_rows(LONG_ROWS), CONTEXT)
        self.steps = steps
        self._short = _short_batches(list(short), Random(SEED))
        self._long = _long_batches(short, long, end, Random(SEED))
        self._rng = Random(SEED)

    def __iter__(self) -> Iterator[list[Batch]]:
        """One batch for each step; from the middle on a packed one beside it, now and then."""
        for step in range(self.steps):
            done = step / self.steps
            first = _repeats(self._rng) if self._is_repeat(done) else next(self._short)
            packed_share = 0.05 if done < 0.5 else 0.22
            long = [next(self._long)] if self._rng.random() < packed_share else []
            yield [first, *long]

    def _is_repeat(self, done: float) -> bool:
        share = 0.5 if done < 0.1 else 0.05
        return self._rng.random() < share
