"""What an engine is to everybody else: its states, and what can be asked of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from sidecar.budget import Plan
from sidecar.errors import SidecarError
from sidecar.generation import Capacity, Embeddings, EngineStats, Event, GenerationRequest, Price


@dataclass(frozen=True, slots=True)
class Loading:
    """Not ready yet: `phase` is download, quantize, load, warmup or restart; `progress` 0..1 where known.

    `was_ready` here and below is whether the same engine has been ready before.
    """

    phase: str
    progress: float | None = None
    detail: str = ""
    was_ready: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """Serving. `about` holds what was chosen and why, for people (dtype, kernel, threads ...).

    `plan` is where the memory went; None where a model's files do not tell it.
    """

    device: str
    capacity: Capacity
    about: tuple[tuple[str, str], ...] = ()
    plan: Plan | None = None
    was_ready: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Failed:
    """Given up; `reason` says what to do.

    `exit_code` is set where only the operator can help: a start with it is not worth keeping up.
    """

    reason: str
    exit_code: int | None = None
    was_ready: bool = False


@dataclass(frozen=True, slots=True)
class Unloaded:
    """No model is held, on request; its memory is free."""


EngineState = Loading | Ready | Failed
ServiceState = EngineState | Unloaded


class Engine(Protocol):
    """Anything that answers requests. `sidecar.service` knows engines by this alone."""

    async def start(self) -> None:
        """Begin loading; returns at once. `state()` tells how far it is."""

    async def stop(self) -> None:
        """End the engine and give all its memory back. Safe to call twice."""

    def state(self) -> EngineState:
        """From memory; never waits."""

    def stats(self) -> EngineStats:
        """From memory; never waits."""

    async def price(self, request: GenerationRequest) -> Price:
        """Tokenise and say what the request takes.

        Raises RequestError when it can never be served, NotReady when the engine is not up.
        """

    def forget(self, request: GenerationRequest) -> None:
        """Give up a request that was priced and will not be streamed. Safe in any state."""

    def stream(self, request: GenerationRequest) -> AsyncIterator[Event]:
        """Yield one Started, then Deltas, one Finished for each choice, then Done.

        `price` was called before with the same request. Any SidecarError may be raised. Closing
        the iterator cancels the work; when that returns, the engine has let go of it, or nothing of it
        is in the way of the next request.
        """

    async def trim(self) -> float | None:
        """Give back memory that nobody uses; the MiB that came free, None where there is nothing to give.

        Raises EngineError when the engine ends meanwhile.
        """

    async def embed(self, inputs: Sequence[str | tuple[int, ...]]) -> Embeddings:
        """The vector of each text or list of token ids. Raises Unsupported where there are none."""


class StandIn(Protocol):
    """Whoever answers where the engine can not. `sidecar.service` knows nothing else of it."""

    async def answer(
        self, request: GenerationRequest, cause: SidecarError, deadline: float, put: Callable[[Event], None]
    ) -> None:
        """Give `put` one whole answer in place of `cause`, before `deadline` of the loop's clock.

        Raises `cause` where nobody began one; behind the first token ProviderBroke or DeadlineExceeded.
        """

    async def close(self) -> None:
        """Let go of every connection. Safe to call twice."""
