"""From one task to another: the reader takes, at once, all that has come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """One reader, any number of writers on the same loop, no bound.

    Behind a slow reader items become one batch, which costs it as little as one item. A reader that has
    all there was and waits for more need not be woken for each item: `ahead` is offered it first, within
    `put`, and what it takes (True) has been read.
    """

    def __init__(self, ahead: Callable[[T], bool] | None = None) -> None:
        self._ahead = ahead
        self._items: list[T] = []
        self._closed = False
        self._error: BaseException | None = None
        self._reader: asyncio.Future[None] | None = None

    def put(self, item: T) -> None:
        """Add one; the reader is woken for what `ahead` does not take."""
        if self._ahead is not None and self._waiting() and self._ahead(item):
            return
        self._items.append(item)
        self._wake()

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more will come. The first word counts: closing again changes nothing."""
        if not self._closed:
            self._closed, self._error = True, error
            self._wake()

    async def take(self) -> list[T]:
        """All items since the last call that `ahead` did not take, at least one, in order; none once it is
        closed and empty.

        Raises the error that it was closed with, behind the last item. Cancelled, it loses nothing.
        """
        if not self._items and not self._closed:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        if not self._items and self._error is not None:
            raise self._error
        items, self._items = self._items, []
        return items

    def _wake(self) -> None:
        if (reader := self._waiting()) is not None:
            reader.set_result(None)

    def _waiting(self) -> asyncio.Future[None] | None:
        """What the reader waits for; None when it does not, or was cancelled."""
        return None if self._reader is None or self._reader.done() else self._reader
