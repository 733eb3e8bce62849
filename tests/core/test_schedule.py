"""Who takes part in the next step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.worker.schedule import MIN_PREFILL_TOKENS, Chunk, Position, schedule


def test_all_that_generate_take_part_before_any_prompt() -> None:
    chunks = schedule([Position(1, 0, 100), Position(2, 50, 51), Position(3, 9, 10)], 64)
    assert chunks == [Chunk(1, 0, 62, False), Chunk(2, 50, 1, True), Chunk(3, 9, 1, True)]


def test_the_oldest_prompt_is_served_first() -> None:
    chunks = schedule([Position(1, 0, 40), Position(2, 0, 40)], 64)
    assert chunks == [Chunk(1, 0, 40, True), Chunk(2, 0, 24, False)]


def test_a_prompt_goes_on_where_it_stopped() -> None:
    assert schedule([Position(1, 64, 100)], 64) == [Chunk(1, 64, 36, True)]


def test_nothing_to_do() -> None:
    assert schedule([], 64) == []
    assert schedule([Position(1, 10, 10)], 64) == []


def test_many_that_generate_do_not_starve_a_prompt() -> None:
    chunks = schedule([*(Position(k, 5, 6) for k in range(64)), Position(99, 0, 200)], 64)
    assert chunks[-1] == Chunk(99, 0, MIN_PREFILL_TOKENS, False)


positions = st.lists(
    st.tuples(st.integers(0, 300), st.integers(0, 300)).map(lambda t: (min(t), max(t))), max_size=40
)


@given(positions, st.integers(1, 256))
def test_any_batch_keeps_its_bounds(pairs: list[tuple[int, int]], budget_tokens: int) -> None:
    sequences = [Position(key, computed, known) for key, (computed, known) in enumerate(pairs)]
    chunks = schedule(sequences, budget_tokens)
    by_key = {p.key: p for p in sequences}
    generating = [p for p in sequences if p.known - p.computed == 1]
    assert len({chunk.key for chunk in chunks}) == len(chunks)
    assert {p.key for p in generating} <= {chunk.key for chunk in chunks}
    assert sum(chunk.count for chunk in chunks) <= max(budget_tokens, len(generating) + MIN_PREFILL_TOKENS)
    for chunk in chunks:
        position = by_key[chunk.key]
        assert chunk.start == position.computed
        assert 1 <= chunk.count <= position.known - position.computed
        assert chunk.last == (chunk.start + chunk.count == position.known)


@given(positions, st.integers(1, 256))
def test_every_batch_ends(pairs: list[tuple[int, int]], budget_tokens: int) -> None:
    """Step by step everything is computed: nobody waits for ever."""
    left = dict(enumerate(pairs))
    for _ in range(3000):
        chunks = schedule([Position(k, c, n) for k, (c, n) in left.items()], budget_tokens)
        if not chunks:
            break
        for chunk in chunks:
            computed, known = left[chunk.key]
            left[chunk.key] = (computed + chunk.count, known)
    assert all(computed == known for computed, known in left.values())
