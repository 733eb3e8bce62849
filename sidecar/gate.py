"""The only admission control: one queue before the engine, first come, first served.

The arithmetic is `sidecar.ledger`, which says who may pass whom, and `sidecar.pace`; this file adds
waiting, time and cancellation. It does not know what a request is, only its `Price`. The place is
taken before there is a price: pricing is work, and as many as may wait may be priced at once.
Whoever was let in keeps its slot and its pages until it leaves by itself: nobody takes them back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat

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
from sidecar.pace import Pace, wait_estimate_s


@dataclass(eq=False, slots=True)
class Hold:
    """A request that has a price: when its slot became its own, and what came of it since.

    `tokens` is for the caller to count up, of one choice; the wait of others is estimated from it.
    """

    turn: asyncio.Future[None]
    max_tokens: int
    began: float | None = None
    tokens: float = 0.0
    ended: bool = False

    def end(self, tokens: float) -> None:
        """The answer is complete, with so many tokens by the engine's own count."""
        self.tokens, self.ended = tokens, tokens < self.max_tokens


Turn = Callable[[Price], Awaitable[Hold]]


class Gate:
    """Reserves one slot and `price.pages` for each request, in the ledger's order.

    For `patience_s` smaller requests may pass one whose pages are not free; see `sidecar.ledger`.
    """

    def __init__(self, max_queue: int = 32, queue_timeout_s: float = 60.0, patience_s: float = 2.0) -> None:
        self.max_queue = max_queue
        self._ledger = Ledger(max_queue, patience_s=patience_s)
        self._queue_timeout_s = queue_timeout_s
        self._holds: dict[int, Hold] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._paused: SidecarError | None = None
        self._pace = Pace()

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

    def pause(self, refusal: SidecarError | None) -> None:
        """Take nobody new, for that reason, until told None. Those who run or wait go on."""
        self._paused = refusal

    def paused(self) -> SidecarError | None:
        """Why nobody new is taken for now."""
        return self._paused

    async def idle(self) -> None:
        """Wait until nobody runs or waits."""
        await self._idle.wait()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Turn]:
        """Hold a place in the queue inside the block; call what it gives, with the price, for a slot.

        Raises Draining, what it is paused for, NotReady or QueueFull at once; the turn raises QueueTimeout
        when it does not come in time. Leaving or being cancelled frees the place in every state.
        """
        ticket = self._arrive()
        try:
            yield partial(self._turn, ticket, asyncio.get_running_loop().time())
        finally:
            self._leave(ticket)

    def _arrive(self) -> int:
        if (refusal := self.closed() or self.paused()) is not None:
            raise refusal
        if self._ledger.slots == 0:
            raise NotReady("The engine has no room yet: it is still loading.", retry_after_s=5)
        ticket = self._ledger.arrive()
        if ticket is None:
            raise self._full()
        self._idle.clear()
        return ticket

    async def _turn(self, ticket: int, arrived: float, price: Price) -> Hold:
        if not self._ledger.can_ever_fit(price.pages):
            raise _too_large(self._ledger.pages)
        loop = asyncio.get_running_loop()
        hold = self._holds[ticket] = Hold(loop.create_future(), price.max_tokens)
        self._ledger.price(ticket, price.pages)
        self._wake()
        # Whoever was tokenised for long and finds a free slot is not late.
        if not self._ledger.is_running(ticket):
            try:
                async with asyncio.timeout_at(arrived + self._queue_timeout_s):
                    await hold.turn
            except TimeoutError:
                raise self._late(ticket, loop.time() - arrived) from None
        hold.began = loop.time()
        return hold

    def _leave(self, ticket: int) -> None:
        hold = self._holds.pop(ticket, None)
        if hold is not None and hold.began is not None:
            held_s = asyncio.get_running_loop().time() - hold.began
            self._pace = self._pace.after(hold.tokens, held_s, ended=hold.ended)
        self._ledger.leave(ticket)
        self._wake()
        if not self._ledger.running and not self._ledger.waiting:
            self._idle.set()

    def _wake(self) -> None:
        # When a patience ends nobody can run who could not before: no timer is needed for it.
        for ticket in self._ledger.promote(asyncio.get_running_loop().time()):
            if not self._holds[ticket].turn.done():
                self._holds[ticket].turn.set_result(None)
        for ticket in self._ledger.surplus():
            self._refuse(ticket, self._full())

    def _refuse(self, ticket: int, error: SidecarError) -> None:
        self._ledger.leave(ticket)
        turn = self._holds.pop(ticket).turn
        if not turn.done():
            turn.set_exception(error)

    def _full(self) -> QueueFull:
        return QueueFull(
            f"{self.running} requests run and {self.waiting} wait, as many as may. "
            "Try again later; MAX_QUEUE sets how many may wait.",
            retry_after_s=self._wait_estimate_s(),
        )

    def _late(self, ticket: int, waited_s: float) -> QueueTimeout:
        self._ledger.leave(ticket)
        self._holds.pop(ticket, None)
        return QueueTimeout(
            f"The request waited {waited_s:.1f} s for its turn and was not started.",
            retry_after_s=self._wait_estimate_s(),
        )

    def _wait_estimate_s(self) -> float:
        left, running = self._pace.left, self._ledger.is_running
        begun = [left(h.max_tokens, h.tokens) for ticket, h in self._holds.items() if running(ticket)]
        priced = (left(h.max_tokens) for ticket, h in self._holds.items() if not running(ticket))
        unpriced = self.running + self.waiting - len(self._holds)
        waiting = chain(priced, repeat(self._pace.tokens, unpriced))
        return wait_estimate_s(begun, waiting, self._pace.tokens_per_s, self._ledger.slots)


def _too_large(pages: int) -> ContextOverflow:
    return ContextOverflow(
        f"The request needs more KV memory than the engine has in all ({pages} pages). "
        "Ask for fewer tokens or fewer choices (`n`).",
        param="max_tokens",
    )
