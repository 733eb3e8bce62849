"""Paged KV accounting: who holds which page, and which pages can be shared. Pure.

A page holds the keys and values of `page_tokens` consecutive tokens, in all layers. A request
takes a `Table` for its prompt and its longest possible answer at once, so that it can never run
out in the middle. Full pages become shareable once they are computed: a later prompt that begins
with the same tokens starts behind them. Pages that nobody holds stay shareable until their room
is needed (oldest first, ends of prefixes before their beginnings).

Sharing is exact: a page is found by its own tokens and by the identity of the page before it, so
two different texts never meet by a hash collision.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

_ROOT = 0  # the identity of "no page before this one"
Key = tuple[int, tuple[int, ...]]


class PoolExhausted(Exception):
    """More pages were asked for than the pool can give; nothing was taken."""


@dataclass(slots=True)
class Table:
    """The pages of one sequence, in order. `shared_tokens` of them were there already."""

    pages: list[int]
    shared_tokens: int
    published: int
    parent: int


class Blocks:
    """The pool. Its total is fixed; `used + cached + free == total` at any time."""

    def __init__(self, total: int, page_tokens: int) -> None:
        self.total = total
        self.page_tokens = page_tokens
        self._free = bytearray(b"\x01" * total)  # bytes.find gives neighbouring pages at C speed
        self._free_count = total
        self._holders = [0] * total
        self._identity = [_ROOT] * total
        self._key: dict[int, Key] = {}
        self._page: dict[Key, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._next_identity = 1

    @property
    def free(self) -> int:
        """Pages that hold nothing."""
        return self._free_count

    @property
    def cached(self) -> int:
        """Pages that nobody holds and that a later prompt may share."""
        return len(self._idle)

    @property
    def used(self) -> int:
        """Pages that some sequence holds."""
        return self.total - self._free_count - len(self._idle)

    def pages_for(self, tokens: int) -> int:
        """How many pages `tokens` tokens take."""
        return -(-tokens // self.page_tokens)

    def open(self, tokens: Sequence[int], capacity_tokens: int) -> Table:
        """Pages for `capacity_tokens`, sharing the longest known prefix of `tokens`.

        At least the last of `tokens` is never shared: its logits must be computed. Raises
        PoolExhausted, having taken nothing.
        """
        shared = self._known_prefix(tokens)
        wanted = self.pages_for(max(capacity_tokens, len(tokens))) - len(shared)
        idle_kept = sum(page in self._idle for page in shared)
        if wanted > self._free_count + len(self._idle) - idle_kept:
            raise PoolExhausted(f"{wanted} pages wanted, {self.free} free, {self.cached} cached")
        for page in shared:
            self._hold(page)
        fresh = self._take(wanted)
        parent = self._identity[shared[-1]] if shared else _ROOT
        return Table(shared + fresh, len(shared) * self.page_tokens, len(shared), parent)

    def publish(self, table: Table, tokens: Sequence[int], computed: int) -> None:
        """The first `computed` of `tokens` are in the pages: share those that are full."""
        size = self.page_tokens
        for index in range(table.published, computed // size):
            key = (table.parent, tuple(tokens[index * size : (index + 1) * size]))
            table.parent = self._register(key, table.pages[index])
            table.published = index + 1

    def close(self, table: Table) -> None:
        """Give the pages back. The table must not be used again."""
        for page in reversed(table.pages):  # ends first: they are the first to be evicted
            self._holders[page] -= 1
            if self._holders[page] == 0:
                if page in self._key:
                    self._idle[page] = None
                else:
                    self._mark_free(page)
        table.pages = []

    def forget(self) -> None:
        """Nothing is shareable any more: the memory behind the pages was lost."""
        for page in list(self._idle):
            self._evict(page)
        self._key.clear()
        self._page.clear()

    def _known_prefix(self, tokens: Sequence[int]) -> list[int]:
        size, parent, pages = self.page_tokens, _ROOT, list[int]()
        for index in range((len(tokens) - 1) // size):
            key = (parent, tuple(tokens[index * size : (index + 1) * size]))
            page = self._page.get(key)
            if page is None:
                break
            pages.append(page)
            parent = self._identity[page]
        return pages

    def _register(self, key: Key, page: int) -> int:
        """Make `page` findable under `key`; the identity that now stands for that prefix."""
        known = self._page.get(key)
        if known is not None:  # computed twice at the same time: the first one stays
            return self._identity[known]
        self._identity[page] = self._next_identity
        self._next_identity += 1
        self._key[page], self._page[key] = key, page
        return self._identity[page]

    def _hold(self, page: int) -> None:
        self._idle.pop(page, None)
        self._holders[page] += 1

    def _take(self, count: int) -> list[int]:
        """Fresh pages, neighbours where possible: attention reads those without copying."""
        while self._free_count < count:
            self._evict(next(iter(self._idle)))
        at = self._free.find(b"\x01" * count)
        run = range(at, at + count) if at >= 0 else self._scattered(count)
        pages = list(run)
        for page in pages:
            self._free[page] = 0
            self._holders[page] = 1
        self._free_count -= count
        return pages

    def _scattered(self, count: int) -> list[int]:
        pages, at = list[int](), -1
        while len(pages) < count:
            at = self._free.find(1, at + 1)
            pages.append(at)
        return pages

    def _evict(self, page: int) -> None:
        del self._idle[page]
        key = self._key.pop(page)
        del self._page[key]
        self._mark_free(page)

    def _mark_free(self, page: int) -> None:
        self._free[page] = 1
        self._free_count += 1
