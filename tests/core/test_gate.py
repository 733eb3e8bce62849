"""Waiting, time and cancellation around the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from sidecar.errors import ContextOverflow, Draining, NotReady, QueueFull, QueueTimeout
from sidecar.gate import Gate
from sidecar.generation import Capacity, Price


def price(pages: int = 1) -> Price:
    return Price(prompt_tokens=1, max_tokens=1, pages=pages)


def gate(slots: int = 1, pages: int = 10, max_queue: int = 4, timeout_s: float = 30.0) -> Gate:
    found = Gate(max_queue, timeout_s)
    found.resize(Capacity(slots, pages, page_tokens=16, context=1024))
    return found


def soon(seconds: float = 30.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def settle() -> None:
    """Let every task run until it waits for something."""
    for _ in range(10):
        await asyncio.sleep(0)


class Visit:
    """A task that takes a slot and holds it until told to leave."""

    def __init__(self, door: Gate, pages: int = 1, deadline_s: float = 30.0) -> None:
        self.inside = asyncio.Event()
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._run(door, pages, deadline_s))

    async def _run(self, door: Gate, pages: int, deadline_s: float) -> None:
        async with door.slot(price(pages), soon(deadline_s)):
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
            async with door.slot(price(), soon()):
                pass
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


@pytest.mark.parametrize(("queue_s", "deadline_s"), [(0.01, 30.0), (30.0, 0.01)])
def test_a_turn_that_does_not_come(queue_s: float, deadline_s: float) -> None:
    async def story() -> None:
        door = gate(timeout_s=queue_s)
        holder = Visit(door)
        await settle()
        with pytest.raises(QueueTimeout):
            async with door.slot(price(), soon(deadline_s)):
                pass
        assert door.waiting == 0
        holder.leave.set()
        await holder.task

    run(story)


def test_what_never_fits_is_told_so() -> None:
    async def story() -> None:
        door = gate(pages=10)
        with pytest.raises(ContextOverflow):
            async with door.slot(price(11), soon()):
                pass

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
            async with door.slot(price(), soon()):
                pass
        first.leave.set()
        second.leave.set()
        await door.idle()
        assert second.task.done()

    run(story)


def test_no_room_before_the_engine_has_said_how_much() -> None:
    async def story() -> None:
        with pytest.raises(NotReady):
            async with Gate().slot(price(), soon()):
                pass

    run(story)


def test_a_full_house_is_said_before_anything_is_priced() -> None:
    async def story() -> None:
        door = gate(max_queue=1)
        door.check_room()
        visits = [Visit(door), Visit(door)]
        await settle()
        with pytest.raises(QueueFull):
            door.check_room()
        for visit in visits:
            visit.leave.set()
        await door.idle()
        gate(max_queue=0).check_room()

    run(story)
