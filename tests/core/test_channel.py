"""The channel between two tasks: order, batches, the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from sidecar.channel import Channel


def run(test: Callable[[Channel[int]], Coroutine[Any, Any, None]]) -> None:
    async def story() -> None:
        async with asyncio.timeout(5):
            await test(Channel())

    asyncio.run(story())


def test_what_waited_comes_at_once_and_in_order() -> None:
    async def story(channel: Channel[int]) -> None:
        for item in range(5):
            channel.put(item)
        assert await channel.take() == [0, 1, 2, 3, 4]

    run(story)


def test_a_reader_that_waits_is_woken_by_the_first() -> None:
    async def story(channel: Channel[int]) -> None:
        reader = asyncio.create_task(channel.take())
        await asyncio.sleep(0)
        assert not reader.done()
        channel.put(1)
        channel.put(2)
        assert await reader == [1, 2]

    run(story)


def test_the_end_comes_behind_the_last_item() -> None:
    async def story(channel: Channel[int]) -> None:
        channel.put(1)
        channel.close()
        assert await channel.take() == [1]
        assert await channel.take() == []
        assert await channel.take() == []

    run(story)


def test_an_error_comes_behind_the_last_item_and_the_first_counts() -> None:
    async def story(channel: Channel[int]) -> None:
        channel.put(1)
        channel.close(ValueError("first"))
        channel.close(ValueError("second"))
        channel.close()
        assert await channel.take() == [1]
        with pytest.raises(ValueError, match="first"):
            await channel.take()

    run(story)


def test_closing_wakes_the_reader() -> None:
    async def story(channel: Channel[int]) -> None:
        reader = asyncio.create_task(channel.take())
        await asyncio.sleep(0)
        channel.close(KeyError())
        with pytest.raises(KeyError):
            await reader

    run(story)


@pytest.mark.parametrize("ahead", [None, lambda item: item > 1])
@pytest.mark.parametrize("woken", [False, True])
def test_a_cancelled_reader_loses_nothing(woken: bool, ahead: Callable[[int], bool] | None) -> None:
    async def story() -> None:
        channel = Channel(ahead)
        reader = asyncio.create_task(channel.take())
        await asyncio.sleep(0)
        if woken:
            channel.put(1)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        channel.put(2)
        assert await channel.take() == ([1, 2] if woken else [2])

    asyncio.run(story())


def test_who_waits_is_offered_an_item_first_and_is_not_woken_for_what_it_takes() -> None:
    async def story() -> None:
        offered: list[int] = []

        def even(item: int) -> bool:
            offered.append(item)
            return item % 2 == 0

        channel = Channel(even)
        channel.put(0)
        assert offered == []  # nobody waits yet, so it is kept
        assert await channel.take() == [0]
        reader = asyncio.create_task(channel.take())
        await asyncio.sleep(0)
        channel.put(2)
        await asyncio.sleep(0)
        assert not reader.done()
        channel.put(3)
        channel.put(4)  # behind one that was refused, so it may not pass it
        assert await reader == [3, 4]
        assert offered == [2, 3]

    asyncio.run(story())
