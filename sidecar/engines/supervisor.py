"""One child's lives, one after the other: the only writer of an engine's state.

An engine says how one life goes (`live`); whether and when there is another is decided here, the
same for every kind of child.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from sidecar.engine import EngineState, Failed, Loading, Ready
from sidecar.engines.child import RESTART_WINDOW_S, restart_delay_s
from sidecar.errors import NotReady
from sidecar.events import Events

log = logging.getLogger(__name__)

EX_SOFTWARE = 70  # sysexits.h

Delay = Callable[[Sequence[float], float], float | None]


@dataclass(frozen=True, slots=True)
class Death:
    """How a life ended: the exit code, and the child's own last words."""

    exit_code: int
    last_words: str = ""


class Supervisor:
    """Lives `live` again and again until it leaves the state Failed or dies too often.

    `name` is the child in words of the log. `live` returns when the child is gone, and calls `enter`
    for what it knows on the way. `events` hears of each beginning and end.
    """

    def __init__(
        self,
        name: str,
        live: Callable[[], Awaitable[Death]],
        delay_s: Delay = restart_delay_s,
        events: Events | None = None,
    ) -> None:
        self._name = name
        self._events = events or Events()
        self._live = live
        self._delay_s = delay_s
        self._state: EngineState = Loading("start")
        self._changed = asyncio.Event()
        self._owner: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._deaths_at: list[float] = []
        self._began = time.monotonic()

    @property
    def state(self) -> EngineState:
        """From memory."""
        return self._state

    def start(self) -> None:
        """Begin the first life; returns at once."""
        self._owner = asyncio.create_task(self._supervise(), name=f"{self._name}-owner")

    async def stop(self) -> None:
        """End the present life and wait until it is over. Safe to call twice, also at once."""
        owner, self._owner = self._owner, None
        if owner is not None:
            self._events.record("engine_stop", f"the {self._name} is ended")
            self._stopping = owner
            owner.cancel()
            if not isinstance(self._state, Failed):
                self.enter(Loading("stop"))
        if self._stopping is not None:
            # Neither a second call nor the end of a caller may cut short what ends the child.
            await asyncio.wait([self._stopping])

    def enter(self, state: EngineState) -> None:
        """The one place where the state changes; whoever waits for that is told."""
        if self._state.was_ready and not isinstance(state, Ready):
            state = replace(state, was_ready=True)
        before, self._state = self._state, state
        self._changed.set()
        self._changed = asyncio.Event()
        if isinstance(state, Ready) and not isinstance(before, Ready):
            took_s = round(time.monotonic() - self._began, 1)
            self._events.record(
                "engine_ready", f"the {self._name} is ready on {state.device}", seconds=took_s
            )
        elif isinstance(state, Failed) and not isinstance(before, Failed):
            self._events.record("engine_failed", state.reason)

    async def loaded(self) -> None:
        """Wait for the end of a (re)start, or for `stop`; how long is the caller's business."""
        while isinstance(self._state, Loading) and self._owner is not None:
            await self._changed.wait()

    def refusal(self) -> NotReady | None:
        """Why nothing can be asked of the child now; None when it is ready."""
        if isinstance(self._state, Ready):
            return None
        if isinstance(self._state, Failed):
            return NotReady(f"The model can not be served: {self._state.reason}")
        return NotReady("The model is not ready yet; try again in a few seconds.", retry_after_s=5)

    async def _supervise(self) -> None:
        try:
            while not isinstance(self._state, Failed):
                death = await self._life()
                if isinstance(self._state, Failed):
                    return
                await self._wait_or_give_up(death)
        except Exception as error:
            log.exception("the %s can not be supervised any more", self._name)
            self.enter(Failed(f"the engine's supervision failed: {type(error).__name__}; see the log"))

    async def _life(self) -> Death:
        """One life. What nobody foresaw ends it as a crash does: it may go better the next time."""
        self._events.record("engine_start", f"the {self._name} is started")
        self._began = time.monotonic()
        try:
            return await self._live()
        except Exception as error:
            log.exception("a life of the %s ended unexpectedly", self._name)
            return Death(EX_SOFTWARE, f"{type(error).__name__} on our side; see the log")

    async def _wait_or_give_up(self, death: Death) -> None:
        now = time.monotonic()
        words = f": {death.last_words}" if death.last_words else ""
        self._events.record("engine_death", f"the {self._name} ended with exit code {death.exit_code}{words}")
        self._deaths_at.append(now)
        if self._state.was_ready:
            self._deaths_at = [at for at in self._deaths_at if now - at < RESTART_WINDOW_S]
        # Deaths before the first success count whenever they were: a load may take long.
        deaths_at = self._deaths_at if self._state.was_ready else [now] * len(self._deaths_at)
        delay_s = self._delay_s(deaths_at, now)
        if delay_s is None:
            when = "in ten minutes" if self._state.was_ready else "before it was ever ready"
            reason = (
                f"the engine died {len(self._deaths_at)} times {when}, last with exit code "
                f"{death.exit_code} and the words: {death.last_words or 'none'}"
            )
            log.error("giving up: %s", reason)
            self.enter(Failed(reason))
            return
        log.error(
            "the %s ended with exit code %s%s; starting again in %g s",
            self._name,
            death.exit_code,
            words,
            delay_s,
        )
        self.enter(Loading("restart", None, f"after exit code {death.exit_code}{words}"))
        await asyncio.sleep(delay_s)
