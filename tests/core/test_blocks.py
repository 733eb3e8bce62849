"""The paged KV accounting against a plain model of itself, over random histories."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.worker.blocks import Blocks, PoolExhausted, Table

PAGE = 4


def take(blocks: Blocks, tokens: list[int], room: int) -> Table:
    """Open, compute everything, publish: what a finished prompt leaves behind."""
    table = blocks.open(tokens, room)
    blocks.publish(table, tokens, len(tokens))
    return table


def test_a_second_prompt_starts_behind_the_shared_pages() -> None:
    blocks = Blocks(32, PAGE)
    first = take(blocks, list(range(18)), 20)
    second = blocks.open([*range(17), 99], 20)
    assert second.shared_tokens == 16
    assert second.pages[:4] == first.pages[:4]
    assert set(second.pages[4:]).isdisjoint(first.pages)


def test_the_last_token_is_never_shared() -> None:
    blocks = Blocks(32, PAGE)
    take(blocks, list(range(16)), 16)
    assert blocks.open(list(range(16)), 16).shared_tokens == 12


def test_pages_stay_shareable_after_their_holder_left() -> None:
    blocks = Blocks(8, PAGE)
    blocks.close(take(blocks, list(range(12)), 12))
    assert (blocks.used, blocks.cached, blocks.free) == (0, 3, 5)
    assert blocks.open(list(range(13)), 16).shared_tokens == 12


def test_room_is_made_from_the_ends_of_idle_prefixes() -> None:
    blocks = Blocks(4, PAGE)
    blocks.close(take(blocks, list(range(16)), 16))
    blocks.open([7, 7, 7], 4)
    assert blocks.open(list(range(12)), 12).shared_tokens == 8


def test_the_same_page_behind_another_beginning_is_another_page() -> None:
    blocks = Blocks(16, PAGE)
    blocks.close(take(blocks, [1, 1, 1, 1, 5, 5, 5, 5], 8))
    assert blocks.open([2, 2, 2, 2, 5, 5, 5, 5, 0], 12).shared_tokens == 0


def test_a_reused_page_number_does_not_revive_its_old_followers() -> None:
    """The parent was evicted and its number given to other tokens: the child must not be found."""
    blocks = Blocks(3, PAGE)
    blocks.close(take(blocks, [1] * 4 + [2] * 4, 8))
    blocks.close(take(blocks, [9] * 12, 12))
    assert blocks.open([9] * 4 + [2] * 4 + [0], 9).shared_tokens == 4


def test_too_much_takes_nothing() -> None:
    blocks = Blocks(4, PAGE)
    held = blocks.open([1, 2, 3], 12)
    before = (blocks.used, blocks.cached, blocks.free)
    with pytest.raises(PoolExhausted, match="2 pages wanted, 1 free"):
        blocks.open([5], 8)
    assert (blocks.used, blocks.cached, blocks.free) == before
    blocks.close(held)
    assert blocks.free == 4


def test_fresh_pages_are_neighbours_where_there_is_room() -> None:
    blocks = Blocks(10, PAGE)
    first, second = blocks.open([1], 8), blocks.open([2], 8)
    blocks.close(first)
    third = blocks.open([3], 16)
    assert third.pages == list(range(third.pages[0], third.pages[0] + 4))
    assert set(third.pages).isdisjoint(second.pages)


def test_after_forget_nothing_is_shared() -> None:
    blocks = Blocks(8, PAGE)
    held = take(blocks, list(range(9)), 12)
    blocks.forget()
    assert blocks.open(list(range(9)), 12).shared_tokens == 0
    blocks.close(held)
    assert blocks.used + blocks.cached + blocks.free == 8


prompts = st.lists(st.integers(0, 1), min_size=1, max_size=20)
histories = st.lists(
    st.one_of(
        st.tuples(st.just("open"), prompts, st.integers(0, 12), st.integers(0, 20)),
        st.tuples(st.just("close"), st.integers(0, 9)),
        st.tuples(st.just("forget")),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(histories)
def test_any_history_keeps_the_books(history: list[tuple]) -> None:
    """Totals add up, no page has two contents, and what is shared holds just those tokens."""
    blocks = Blocks(12, PAGE)
    held: list[tuple[Table, list[int]]] = []
    content: dict[int, tuple[int, ...]] = {}
    for action in history:
        if action[0] == "open":
            _, tokens, extra, computed = action
            try:
                table = blocks.open(tokens, len(tokens) + extra)
            except PoolExhausted:
                continue
            shared = table.shared_tokens // PAGE
            assert table.shared_tokens < len(tokens)
            for index in range(shared):
                assert content[table.pages[index]] == tuple(tokens[: (index + 1) * PAGE])
            holders = [page for other, _ in held for page in other.pages]
            assert set(table.pages[shared:]).isdisjoint(holders)
            for index in range(shared, len(table.pages)):
                content[table.pages[index]] = tuple(tokens[: (index + 1) * PAGE])
            blocks.publish(table, tokens, min(max(computed, table.shared_tokens), len(tokens)))
            held.append((table, tokens))
        elif action[0] == "close" and held:
            blocks.close(held.pop(action[1] % len(held))[0])
        elif action[0] == "forget":
            blocks.forget()
        assert blocks.used + blocks.cached + blocks.free == 12
        assert blocks.used == len({page for table, _ in held for page in table.pages})
    for table, _ in held:
        blocks.close(table)
    assert blocks.used == 0
