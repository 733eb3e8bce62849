"""The only admission control: one FIFO queue before the engine.

The arithmetic is `sidecar.ledger`; this file adds waiting, time and cancellation. It does not
know what a request is, only its `Price`, and of time only how long anybody may wait. The place is
taken before there is a price: pricing is work, and as many as may wait may be priced at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from sidecar.errors import (
    ContextOverflow,
    Draining,
    NotReady,
    QueueFull,
    QueueTimeout,
    SidecarError,
)
from sidecar.generation import Capacity, Price
from sidecar.ledger import Ledger

RETRY_MIN_S = 1.0
RETRY_MAX_S = 60.0

Turn = Callable[[Price], Awaitable[None]]


class Gate:
    """Reserves one slot and `price.pages` for each request, in order of arrival."""

    def __init__(self, max_queue: int = 32, queue_timeout_s: float = 60.0) -> None:
        self.max_queue = max_queue
        self._ledger = Ledger(max_queue)
        self._queue_timeout_s = queue_timeout_s
        self._turns: dict[int, asyncio.Future[None]] = {}
        self._began: dict[int, float] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._mean_hold_s = 1.0

    @property
    def running(self) -> int:
        """Requests that hold a slot."""
        return self._ledger.running

    @property
    def waiting(self) -> int:
        """Requests in the queue, those being priced included."""
        return self._ledger.waiting

    @property
    def pages_reserved(self) -> int:
        """Pages held by running requests."""
        return self._ledger.pages_reserved

    def resize(self, capacity: Capacity) -> None:
        """Take over what the engine says it has; who can never fit any more is told so."""
        if (self._ledger.slots, self._ledger.pages) == (capacity.slots, capacity.pages):
            return
        self._ledger.resize(capacity.slots, capacity.pages)
        for ticket in self._ledger.hopeless():
            self._refuse(ticket, _too_large(capacity.pages))
        self._wake()

    def drain(self) -> None:
        """Take nobody new. Those who run or wait go on."""
        self._draining = True

    def closed(self) -> Draining | None:
        """Why nobody new is taken, once `drain` was called."""
        if not self._draining:
            return None
        return Draining("The service is stopping and takes no new work.", retry_after_s=10)

    async def idle(self) -> None:
        """Wait until nobody runs or waits."""
        await self._idle.wait()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Turn]:
        """Hold a place in the queue inside the block; call what it gives, with the price, for a slot.

        Raises Draining, NotReady or QueueFull at once; the turn raises QueueTimeout when it does
        not come in time. Leaving or being cancelled frees the place in every state.
        """
        ticket = self._arrive()
        try:
            yield partial(self._turn, ticket, asyncio.get_running_loop().time())
        finally:
            self._leave(ticket)

    def _arrive(self) -> int:
        if (closed := self.closed()) is not None:
            raise closed
        if self._ledger.slots == 0:
            raise NotReady("The engine has no room yet: it is still loading.", retry_after_s=5)
        ticket = self._ledger.arrive()
        if ticket is None:
            raise self._full()
        self._idle.clear()
        return ticket

    async def _turn(self, ticket: int, arrived: float, price: Price) -> None:
        if not self._ledger.can_ever_fit(price.pages):
            raise _too_large(self._ledger.pages)
        loop = asyncio.get_running_loop()
        turn = self._turns[ticket] = loop.create_future()
        self._ledger.price(ticket, price.pages)
        self._wake()
        # Whoever was tokenised for long and finds a free slot is not late.
        if not self._ledger.is_running(ticket):
            try:
                async with asyncio.timeout_at(arrived + self._queue_timeout_s):
                    await turn
            except TimeoutError:
                raise self._late(loop.time() - arrived) from None
        self._began[ticket] = loop.time()

    def _leave(self, ticket: int) -> None:
        if (began := self._began.pop(ticket, None)) is not None:
            held_s = asyncio.get_running_loop().time() - began
            self._mean_hold_s += 0.2 * (held_s - self._mean_hold_s)
        self._ledger.leave(ticket)
        self._turns.pop(ticket, None)
        self._wake()
        if not self._ledger.running and not self._ledger.waiting:
            self._idle.set()

    def _wake(self) -> None:
        for ticket in self._ledger.promote():
            if not self._turns[ticket].done():
                self._turns[ticket].set_result(None)
        for ticket in self._ledger.surplus():
            self._refuse(ticket, self._full())

    def _refuse(self, ticket: int, error: SidecarError) -> None:
        self._ledger.leave(ticket)
        if not self._turns[ticket].done():
            self._turns[ticket].set_exception(error)

    def _full(self) -> QueueFull:
        return QueueFull(
            f"{self.running} requests run and {self.waiting} wait, as many as may. "
            "Try again later; MAX_QUEUE sets how many may wait.",
            retry_after_s=self._wait_estimate_s(),
        )

    def _late(self, waited_s: float) -> QueueTimeout:
        return QueueTimeout(
            f"The request waited {waited_s:.1f} s for its turn and was not started.",
            retry_after_s=self._wait_estimate_s(),
        )

    def _wait_estimate_s(self) -> float:
        turns = (self.waiting + 1) / max(1, self._ledger.slots)
        return min(RETRY_MAX_S, max(RETRY_MIN_S, self._mean_hold_s * turns))


def _too_large(pages: int) -> ContextOverflow:
    return ContextOverflow(
        f"The request needs more KV memory than the engine has in all ({pages} pages). "
        "Ask for fewer tokens or fewer choices (`n`).",
        param="max_tokens",
    )
