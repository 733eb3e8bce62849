"""After memory ran out: give back, measure, and keep the same from happening again at once."""

from __future__ import annotations

import logging
import threading

import torch

from sidecar.budget import Plan
from sidecar.errors import OutOfMemory
from sidecar.worker.choice import Job
from sidecar.worker.memory import free_mib, release_memory
from sidecar.worker.schedule import Chunk
from sidecar.worker.shortage import Shape, Shortage, of_shape, shortage, without

log = logging.getLogger(__name__)


class Recovery:
    """Remembers the shapes for which there was no memory. `check` may be called from any thread."""

    def __init__(self, plan: Plan, batch_tokens: int, device: torch.device) -> None:
        self._plan = plan
        self._batch_tokens = batch_tokens
        self._device = device
        self._lock = threading.Lock()
        self._known: tuple[Shortage, ...] = ()

    def ran_out(self, chunk: Chunk, asked_mib: float) -> OutOfMemory:
        """What the request of that chunk is told, when all that the step held is given back and measured.

        `asked_mib` is what was asked for when there was no more.
        """
        freed_mib = release_memory(self._device)
        free = free_mib(self._device)
        shape = Shape(chunk.count, chunk.start + chunk.count)
        met = shortage(shape, self._plan, self._batch_tokens, asked_mib, free)
        with self._lock:
            self._known = (*(one for one in self._known if not one.within(met)), met)
        log.warning(
            "out of memory in a step of %d tokens: %.0f MiB given back, %.0f free, %.0f needed",
            chunk.count,
            freed_mib,
            free,
            met.needed_mib,
        )
        return met.error(free)

    def check(self, job: Job) -> None:
        """Raises OutOfMemory for a request that comes to a step like one that failed, if there is no room."""
        if not self._known:
            return
        release_memory(self._device)
        free = free_mib(self._device)
        with self._lock:
            self._known = without(self._known, free)
        tokens = len(job.ids)
        shape = Shape(min(tokens, self._batch_tokens), tokens + job.max_tokens)
        if (met := of_shape(self._known, shape)) is not None:
            raise met.error(free)
