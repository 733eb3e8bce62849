"""One generation under way: its channel, its task, and why it was cut, if it was."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import anyio

from sidecar.channel import Channel
from sidecar.errors import DeadlineExceeded, SidecarError
from sidecar.generation import Done, Event

CLOSE_SECONDS = 10.0


@dataclass(eq=False)
class Run:
    """See the module. The channel is closed behind the last event, with the error if there is one."""

    channel: Channel[Event] = field(default_factory=Channel)
    task: asyncio.Task[Any] | None = None
    cut: SidecarError | None = None
    usage: Done | None = None

    def end(self, error: SidecarError) -> None:
        """Stop the work and tell the reader why."""
        if self.task is not None and not self.task.cancelling():
            self.cut = error
            self.task.cancel()


@dataclass(frozen=True, slots=True)
class Drained:
    """How a drain ended: answers that were finished, and answers that had to be cut."""

    finished: int
    cut: int


async def closed(task: asyncio.Task[Any]) -> None:
    """Cancel the task and wait, within reason, until it has cleaned up."""
    # A task that is being cancelled (its deadline) is cleaning up; a second cancellation would cut
    # the engine's own clean-up short.
    if not task.cancelling():
        task.cancel()
    # anyio delivers a cancellation again at every await; only its own shield holds it off.
    with anyio.move_on_after(CLOSE_SECONDS, shield=True):
        await asyncio.wait([task])


@contextlib.asynccontextmanager
async def until(deadline: float, deadline_s: float) -> AsyncIterator[None]:
    """DeadlineExceeded for a block that is not done at `deadline`, a time of the loop's clock."""
    scope = asyncio.timeout_at(deadline)
    try:
        async with scope:
            yield
    except TimeoutError:
        if not scope.expired():
            raise
        raise DeadlineExceeded.of(deadline_s) from None
