"""Generations under way: of each its channel, its task, and why it was cut, if it was."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio

from sidecar.channel import Channel
from sidecar.errors import DeadlineExceeded, EngineFault, SidecarError
from sidecar.generation import Done, Event, Finished, GenerationRequest, Started, Usage
from sidecar.phases import Phases

log = logging.getLogger("sidecar.service")

CLOSE_SECONDS = 10.0

T = TypeVar("T")


@dataclass(eq=False, kw_only=True)
class Work:
    """What has a task that may be cut. `elsewhere` is whether somebody else does it."""

    task: asyncio.Task[Any] | None = None
    cut: SidecarError | None = None
    elsewhere: bool = False

    def end(self, error: SidecarError) -> None:
        """Stop it and tell the reader why."""
        if self.task is not None and not self.task.cancelling():
            self.cut = error
            self.task.cancel()


@dataclass(eq=False, kw_only=True)
class Run(Work):
    """A generation. The channel is closed behind the last event, with the error if there is one.

    `hosted` is whether somebody else may answer it. While somebody may, `Started` is held back until there
    is a token, since it says who answers.
    """

    phases: Phases
    channel: Channel[Event]
    usage: Usage | None = None
    hosted: bool = False
    begun: bool = False
    _started: Started | None = None

    def put(self, event: Event) -> None:
        """Pass an event of our own engine on to the reader."""
        if self.hosted and not self.begun:
            if isinstance(event, Started):
                self._started = event
                return
            if self._started is not None:
                self.channel.put(self._started)
        self.begun = True
        self.channel.put(event)

    def note(self, event: Event) -> None:
        """What an event other than new text tells of the whole."""
        if isinstance(event, Started):
            self.phases.prompt_tokens = event.prompt_tokens
        elif isinstance(event, Finished) and event.reason == "length":
            self.phases.cut_by_length = True
        elif isinstance(event, Done):
            self.usage = event.usage

    def figures(self, now: float) -> dict[str, Any]:
        """How long what took, in seconds, and the token counts; what is not known is left out."""
        phases, usage = self.phases, self.usage
        seconds = {
            "price_s": phases.price_s,
            "queue_s": phases.queue_s,
            "first_token_s": phases.first_token_s,
            "seconds": now - phases.arrived,
        }
        tokens = {
            "prompt_tokens": usage and usage.prompt_tokens,
            "cached_tokens": usage and usage.cached_tokens,
            "completion_tokens": usage.completion_tokens if usage else phases.tokens or None,
        }
        rounded = {name: round(value, 3) for name, value in seconds.items() if value is not None}
        return rounded | {name: count for name, count in tokens.items() if count is not None}


@dataclass(frozen=True, slots=True)
class Drained:
    """How a drain ended: answers that were finished, and answers that had to be cut."""

    finished: int
    cut: int


class Runs:
    """Those under way."""

    def __init__(self) -> None:
        self._open: set[Work] = set()

    def add(self, run: Work) -> None:
        """It has begun."""
        self._open.add(run)

    def discard(self, run: Work) -> None:
        """It is over. Again is harmless."""
        self._open.discard(run)

    def open(self) -> set[Work]:
        """Those of this moment."""
        return set(self._open)

    async def result(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work returns, done as one of these. Raises what it was cut with; EngineFault where the
        work was cancelled by nobody, as in `told`."""
        task = asyncio.create_task(work)
        run = Work(task=task)
        self.add(run)
        try:
            await asyncio.wait([task])
        finally:
            self.discard(run)
            await closed(task)
        if task.cancelled():
            raise run.cut or named(asyncio.CancelledError())
        return task.result()

    async def elsewhere_over(self) -> None:
        """Wait for those that somebody else answers: they have no place, so no gate knows of them."""
        if tasks := [task for run, task in self._tasks().items() if run.elsewhere]:
            await asyncio.wait(tasks)

    async def cut(self, error: SidecarError, *, here: bool = False) -> None:
        """End all of them, or those that our engine has `here`; wait, within reason, until they are."""
        runs = {run: task for run, task in self._tasks().items() if not (here and run.elsewhere)}
        for run in runs:
            run.end(error)
        if runs:
            await asyncio.wait(runs.values(), timeout=CLOSE_SECONDS)

    def _tasks(self) -> dict[Work, asyncio.Task[Any]]:
        return {run: run.task for run in self._open if run.task and not run.task.done()}


def told(raised: BaseException, run: Run, request: GenerationRequest) -> SidecarError | None:
    """What the reader is told of an end that is none; None when it is the reader who cancelled the work."""
    if isinstance(raised, Exception):
        return named(raised, request)
    if run.cut is None and run.task is not None and run.task.cancelling():
        return None
    # Cancelled by nobody: a library let a cancellation of its own through, as aiohttp's pools do when they
    # close. The reader would wait for ever.
    return run.cut or named(raised, request)


def named(error: BaseException, request: GenerationRequest | None = None) -> SidecarError:
    """The error itself; one that nobody foresaw is logged, and our engine's fault."""
    if isinstance(error, SidecarError):
        return error
    whose = {"generation": request.id} if request is not None else None
    log.error("generation failed unexpectedly", exc_info=error, extra=whose)
    return EngineFault(f"The engine failed unexpectedly ({type(error).__name__}).")


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
