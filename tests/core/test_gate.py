"""Waiting, time and cancellation around the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from sidecar.errors import ContextOverflow, Draining, NotReady, QueueFull, QueueTimeout
from sidecar.gate import Gate
from sidecar.generation import Capacity, Price


def price(pages: int = 1, max_tokens: int = 1) -> Price:
    return Price(prompt_tokens=1, max_tokens=max_tokens, pages=pages)


def gate(
    slots: int = 1, pages: int = 10, max_queue: int = 4, timeout_s: float = 30.0, patience_s: float = 0.0
) -> Gate:
    found = Gate(max_queue, timeout_s, patience_s)
    found.resize(Capacity(slots, pages, page_tokens=16, context=1024))
    return found


async def through(door: Gate, pages: int = 1) -> None:
    """Take a slot and leave at once."""
    async with door.place() as turn:
        await turn(price(pages))


async def settle() -> None:
    """Let every task run until it waits for something."""
    for _ in range(10):
        await asyncio.sleep(0)


class Visit:
    """A task that takes a slot and holds it until told to leave."""

    def __init__(self, door: Gate, pages: int = 1, *, priced: bool = True) -> None:
        self.priced = asyncio.Event()
        if priced:
            self.priced.set()
        self.inside = asyncio.Event()
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._run(door, pages))

    async def _run(self, door: Gate, pages: int) -> None:
        async with door.place() as turn:
            await self.priced.wait()
            await turn(price(pages))
            self.inside.set()
            await self.leave.wait()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_waiters_run_in_order() -> None:
    async def story() -> None:
        door = gate()
        first, second, third = Visit(door), Visit(door), Visit(door)
        await settle()
        assert (door.running, door.waiting) == (1, 2)
        first.leave.set()
        await second.inside.wait()
        assert not third.inside.is_set()
        second.leave.set()
        third.leave.set()
        await third.task
        await door.idle()

    run(story)


def test_a_full_queue_refuses_with_a_hint() -> None:
    async def story() -> None:
        door = gate(max_queue=1)
        visits = [Visit(door), Visit(door)]
        await settle()
        with pytest.raises(QueueFull) as refused:
            await through(door)
        assert refused.value.retry_after_s and 1 <= refused.value.retry_after_s <= 60
        for visit in visits:
            visit.leave.set()
        await door.idle()

    run(story)


def test_a_cancelled_waiter_frees_its_place() -> None:
    async def story() -> None:
        door = gate(pages=10)
        first, large, small = Visit(door, 5), Visit(door, 10), Visit(door, 5)
        await settle()
        large.task.cancel()
        first.leave.set()
        await small.inside.wait()
        assert door.waiting == 0
        small.leave.set()
        await door.idle()

    run(story)


def test_cancelled_in_the_moment_of_its_turn() -> None:
    async def story() -> None:
        door = gate()
        first, second = Visit(door), Visit(door)
        await settle()
        first.leave.set()
        await first.task
        second.task.cancel()
        await asyncio.wait([second.task])
        assert (door.running, door.waiting, door.pages_reserved) == (0, 0, 0)

    run(story)


def test_a_turn_that_does_not_come() -> None:
    async def story() -> None:
        door = gate(timeout_s=0.01)
        holder = Visit(door)
        await settle()
        with pytest.raises(QueueTimeout):
            await through(door)
        assert door.waiting == 0
        holder.leave.set()
        await holder.task

    run(story)


def test_what_never_fits_is_told_so() -> None:
    async def story() -> None:
        door = gate(pages=10)
        with pytest.raises(ContextOverflow):
            await through(door, 11)
        await door.idle()

    run(story)


def test_a_smaller_engine_refuses_those_who_wait() -> None:
    async def story() -> None:
        door = gate(pages=10)
        holder, large = Visit(door, 5), Visit(door, 10)
        await settle()
        door.resize(Capacity(1, 8, 16, 1024))
        await asyncio.wait([large.task])
        assert isinstance(large.task.exception(), ContextOverflow)
        holder.leave.set()
        await door.idle()

    run(story)


def test_draining_lets_the_queue_finish() -> None:
    async def story() -> None:
        door = gate()
        first, second = Visit(door), Visit(door)
        await settle()
        door.drain()
        with pytest.raises(Draining):
            await through(door)
        first.leave.set()
        second.leave.set()
        await door.idle()
        assert second.task.done()

    run(story)


def test_no_room_before_the_engine_has_said_how_much() -> None:
    async def story() -> None:
        with pytest.raises(NotReady):
            await through(Gate())

    run(story)


def test_who_is_being_priced_has_a_place() -> None:
    """One slot and one place: two are priced at once, and the third is told so without a price."""

    async def story() -> None:
        door = gate(max_queue=1)
        visits = [Visit(door, priced=False), Visit(door, priced=False)]
        await settle()
        assert (door.running, door.waiting) == (0, 2)
        with pytest.raises(QueueFull):
            async with door.place():
                pass
        visits[1].priced.set()
        await settle()
        assert not visits[1].inside.is_set()
        visits[0].priced.set()
        await visits[0].inside.wait()
        for visit in visits:
            visit.leave.set()
        await door.idle()

    run(story)


def test_who_leaves_before_the_price_lets_the_next_one_run() -> None:
    async def story() -> None:
        door = gate()
        first, second = Visit(door, priced=False), Visit(door)
        await settle()
        assert not second.inside.is_set()
        first.task.cancel()
        await second.inside.wait()
        second.leave.set()
        await door.idle()

    run(story)


def test_nobody_waits_where_nobody_may() -> None:
    """Two free slots let two arrive; the pages are enough for one, and the queue is for none."""

    async def story() -> None:
        door = gate(slots=2, pages=10, max_queue=0)
        large, late = Visit(door, 10, priced=False), Visit(door, 10)
        await settle()
        large.priced.set()
        await asyncio.wait([late.task])
        assert isinstance(late.task.exception(), QueueFull)
        large.leave.set()
        await door.idle()

    run(story)


def test_small_ones_pass_a_large_one() -> None:
    async def story() -> None:
        door = gate(slots=3, patience_s=3600)
        first, large, small = Visit(door, 6), Visit(door, 10), Visit(door, 4)
        await small.inside.wait()
        assert (door.running, door.waiting, door.pages_reserved) == (2, 1, 10)
        first.leave.set()
        small.leave.set()
        await large.inside.wait()
        large.leave.set()
        await door.idle()

    run(story)


def test_nobody_passes_once_the_patience_is_over() -> None:
    async def story() -> None:
        door = gate(slots=3, patience_s=0.01)
        first, large = Visit(door, 6), Visit(door, 10)
        await settle()
        over = asyncio.get_running_loop().time() + 0.01
        while asyncio.get_running_loop().time() < over:
            await asyncio.sleep(0.005)
        small = Visit(door, 4)
        await settle()
        assert (door.running, door.waiting) == (1, 2)
        first.leave.set()
        await large.inside.wait()
        assert not small.inside.is_set()
        large.leave.set()
        await small.inside.wait()
        small.leave.set()
        await door.idle()

    run(story)


async def refused(door: Gate) -> float:
    """The seconds after which a refused one should come back."""
    with pytest.raises(QueueFull) as told:
        await through(door)
    assert told.value.retry_after_s is not None
    return told.value.retry_after_s


def test_the_hint_follows_what_is_left_to_generate() -> None:
    """400 tokens at the 20 a second that are assumed before the first answer, then fewer and fewer."""

    async def story() -> None:
        door = gate(max_queue=0)
        async with door.place() as turn:
            hold = await turn(price(max_tokens=400))
            assert await refused(door) == 20
            hold.tokens = 300
            assert await refused(door) == 5
            hold.tokens = 500
            assert await refused(door) == 1

    run(story)


def test_the_hint_counts_those_who_wait_priced_or_not() -> None:
    async def story() -> None:
        door = gate(max_queue=2)
        async with door.place() as turn:
            await turn(price(max_tokens=40))
            waiting = [Visit(door), Visit(door, priced=False)]
            await settle()
            assert await refused(door) == (40 + 1 + 128) / 20
            for visit in waiting:
                visit.task.cancel()

    run(story)


def test_who_waited_in_vain_is_not_told_to_wait_for_itself() -> None:
    async def story() -> None:
        door = gate(timeout_s=0.01)
        async with door.place() as turn:
            await turn(price(max_tokens=100))
            with pytest.raises(QueueTimeout) as late:
                async with door.place() as other:
                    await other(price(max_tokens=1000))
            assert late.value.retry_after_s == 5

    run(story)


def test_a_measured_pace_replaces_the_assumed_one() -> None:
    async def story() -> None:
        door = gate(max_queue=0)
        async with door.place() as turn:
            (await turn(price(max_tokens=10**6))).tokens = 10**6
        async with door.place() as turn:
            await turn(price(max_tokens=1000))
            assert await refused(door) == 1  # it took next to no time for a million tokens

    run(story)
