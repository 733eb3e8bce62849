"""The most that the cards held while something ran, as their driver tells it."""

from __future__ import annotations

import importlib
import threading
from types import TracebackType
from typing import Any

from sidecar.gpu import text_of
from tools.bench.servers import MIB

EVERY_S = 0.02


class HighWater:
    """Looks at the cards all through the block; what they held at its beginning is others' and is taken off.

    The allocator's cache only grows while it is loaded, so what falls between two looks is seen by the next.
    """

    def __init__(self, library: str = "pynvml", every_s: float = EVERY_S) -> None:
        self._nvml: Any = importlib.import_module(library)
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="high-water")
        self._handles: list[Any] = []
        self._first = self._most = self.looks = 0

    def __enter__(self) -> HighWater:
        self._nvml.nvmlInit()
        count = self._nvml.nvmlDeviceGetCount()
        self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        self._first = self._most = self._used()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._nvml.nvmlShutdown()

    @property
    def mib(self) -> float:
        """The most so far, less what was there before."""
        return (self._most - self._first) / MIB

    def card(self) -> str:
        """The cards and their driver by name; inside the block."""
        names = {text_of(self._nvml.nvmlDeviceGetName(handle)) for handle in self._handles}
        return f"{', '.join(sorted(names))}, driver {text_of(self._nvml.nvmlSystemGetDriverVersion())}"

    def _look_on(self) -> None:
        while not self._ended.wait(self._every_s):
            self._most = max(self._most, self._used())
            self.looks += 1

    def _used(self) -> int:
        return sum(int(self._nvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in self._handles)
