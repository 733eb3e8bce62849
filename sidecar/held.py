"""The one engine that is held: for which model, and how it is exchanged for another's.

An exchange is whole: whoever asked for it may leave, the exchange goes on. One at a time, in the
order in which they were asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from sidecar.engine import Engine, Failed, Loading, Ready, ServiceState, Unloaded
from sidecar.errors import NotLoaded, QueueFull, SidecarError
from sidecar.run import until
from sidecar.shelf import ServedModel, Shelf

log = logging.getLogger("sidecar.service")

LOOK_SECONDS = 0.05


class Held:
    """`emptied` is awaited before an engine is ended, `closed` says why none is begun any more.

    `max_waiting` requests may wait for a model that is loaded for them; None: none is loaded for any.
    """

    def __init__(
        self,
        shelf: Shelf,
        model: ServedModel,
        emptied: Callable[[], Awaitable[None]],
        closed: Callable[[], SidecarError | None],
        max_waiting: int | None = None,
    ) -> None:
        self.model = model
        self.engine: Engine | None = shelf.open(model)
        self.leaving = False
        self._was_ready = False
        self._shelf = shelf
        self._max_waiting = max_waiting
        self._waiting = 0
        self._emptied = emptied
        self._closed = closed
        self._turn = asyncio.Lock()
        self._exchanges: set[asyncio.Task[None]] = set()

    def state(self) -> ServiceState:
        """The engine's own state, from memory; Unloaded when there is no engine."""
        return Unloaded() if self.engine is None else self.engine.state()

    @property
    def was_ready(self) -> bool:
        """Whether this model, or one before it, has been ready."""
        return self._was_ready or (self.engine is not None and self.engine.state().was_ready)

    async def choose(self, name: str, deadline_s: float) -> ServedModel:
        """See `Service.choose`."""
        model = self.model if not name or self.model.answers_to(name) else self._shelf.find(name)
        state = self.state() if model == self.model else Unloaded()
        if self._max_waiting is None:
            if isinstance(state, Unloaded):
                raise NotLoaded.of(model.id)
        elif self.leaving or not isinstance(state, Ready | Failed):
            await self._waited_for(model, deadline_s, self._max_waiting)
        return model

    async def _waited_for(self, model: ServedModel, deadline_s: float, max_waiting: int) -> None:
        """Load it and wait for the end of that, among as many as may wait for a turn."""
        if self._waiting >= max_waiting:
            raise QueueFull("As many requests wait for the model as may. Try again later.", retry_after_s=5)
        self._waiting += 1
        try:
            async with until(asyncio.get_running_loop().time() + deadline_s, deadline_s):
                await self.load(model)
                while self.model == model and isinstance(self.state(), Loading):
                    await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._waiting -= 1

    async def load(self, model: ServedModel) -> None:
        """Begin to load the model, unless that is done. The engine before it has ended by then.

        Raises StartError when no engine can be made; the one that is held goes on then.
        """
        await self._whole(self._load(model))

    async def unload(self, model: ServedModel | None) -> None:
        """End the engine, of that model or of any; returns when it is gone. Again is harmless."""
        await self._whole(self._unload(model))

    async def stop(self) -> None:
        """End the engine for good, behind whatever exchange is under way."""
        async with self._turn:
            if self.engine is not None:
                await self.engine.stop()

    async def _load(self, model: ServedModel) -> None:
        async with self._turn:
            self._check_open()
            if model == self.model and not isinstance(self.state(), Unloaded | Failed):
                return
            engine = self._shelf.open(model)  # before anything is given up for it
            await self._leave()
            self._check_open()
            self.engine, self.model = engine, model
            await engine.start()
        log.info("loading", extra={"model": model.id})

    async def _unload(self, model: ServedModel | None) -> None:
        async with self._turn:
            if model not in (None, self.model):
                return
            await self._leave()
        log.info("unloaded", extra={"model": self.model.id})

    async def _leave(self) -> None:
        if self.engine is None:
            return
        self.leaving = True
        try:
            await self._emptied()
            self._was_ready = self.was_ready
            await self.engine.stop()
            self.engine = None
        finally:
            self.leaving = False

    def _check_open(self) -> None:
        if (closed := self._closed()) is not None:
            raise closed

    async def _whole(self, exchange: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(exchange)
        self._exchanges.add(task)
        task.add_done_callback(self._ended)
        await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._exchanges.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a model could not be loaded or unloaded: %s", error)
