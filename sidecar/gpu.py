"""What the graphics card says, as a value or as a named failure. Never raises.

Reading takes milliseconds when all is well and may hang when a driver does not answer, so it
happens on a thread that nobody waits for longer than a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

log = logging.getLogger("sidecar.gpu")

# Without its persistence mode a driver wakes each card first, which takes seconds.
LOOK_SECONDS = 20.0
# One question at a time: a driver that does not answer is not asked by more and more threads.
_asking = threading.Lock()
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One card: bytes used and in all, degrees Celsius where the card says.

    `by_process` are (process id, bytes), as far as the driver tells; in a container it is often empty.
    """

    index: int
    name: str
    uuid: str
    memory_used_bytes: int
    memory_total_bytes: int
    temperature_celsius: float | None
    by_process: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class GpuUnreadable:
    """No reading, and why. Unknown is not zero."""

    reason: str


GpuLook = tuple[GpuReading, ...] | GpuUnreadable


def look(library: str = "pynvml", deadline_s: float = LOOK_SECONDS) -> GpuLook:
    """Read every card once. Unreadable where the driver, or a look before this one, takes too long."""
    return ask(_cards, library, deadline_s)


def ask(
    question: Callable[[Any], Answer], library: str = "pynvml", deadline_s: float = LOOK_SECONDS
) -> Answer | GpuUnreadable:
    """What the driver's library, opened and closed around it, answers to the question."""
    late = GpuUnreadable(f"the driver has not answered for {deadline_s:g} s")
    if not _asking.acquire(timeout=deadline_s):
        return late
    answer: queue.SimpleQueue[Answer | GpuUnreadable] = queue.SimpleQueue()

    def on_thread() -> None:
        found = _ask(question, library)
        _asking.release()
        answer.put(found)

    # A daemon: what hangs in a driver must not keep the program from ending.
    threading.Thread(target=on_thread, name="gpu-look", daemon=True).start()
    try:
        return answer.get(timeout=deadline_s)
    except queue.Empty:
        log.warning("the NVIDIA driver has not answered for %g s; its cards are not known", deadline_s)
        return late


def _ask(question: Callable[[Any], Answer], library: str) -> Answer | GpuUnreadable:
    try:
        # Imported here: the library is only of use where a driver is.
        nvml: Any = importlib.import_module(library)
        nvml.nvmlInit()
    except Exception as error:  # a missing driver has many names; all are a value
        return GpuUnreadable(_reason(error))
    try:
        return question(nvml)
    except Exception as error:  # so has a lost card
        return GpuUnreadable(_reason(error))
    finally:
        with contextlib.suppress(Exception):
            nvml.nvmlShutdown()


class GpuWatch:
    """Keeps the last reading; `run()` refreshes it until it is cancelled."""

    def __init__(self, interval_s: float = 5.0) -> None:
        self.latest: GpuLook = GpuUnreadable("not read yet")
        self._interval_s = interval_s

    async def run(self) -> None:
        """Read now and then every `interval_s`; ends when there is no driver to ask."""
        while True:
            self.latest = await asyncio.to_thread(look)
            if isinstance(self.latest, GpuUnreadable) and "NotFound" in self.latest.reason:
                return
            await asyncio.sleep(self._interval_s)

    def cards(self) -> tuple[GpuReading, ...]:
        """The last reading's cards; empty when there is none."""
        return () if isinstance(self.latest, GpuUnreadable) else self.latest


def _cards(nvml: Any) -> tuple[GpuReading, ...]:
    return tuple(card(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))


def card(nvml: Any, index: int) -> GpuReading:
    """One card, read now. Raises what the library raises."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return GpuReading(
        index=index,
        name=text_of(nvml.nvmlDeviceGetName(handle)),
        uuid=text_of(nvml.nvmlDeviceGetUUID(handle)),
        memory_used_bytes=int(memory.used),
        memory_total_bytes=int(memory.total),
        temperature_celsius=_temperature(nvml, handle),
        by_process=_processes(nvml, handle),
    )


def _processes(nvml: Any, handle: Any) -> tuple[tuple[int, int], ...]:
    try:
        found = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except Exception:  # not every driver, and no card in slices, names them
        return ()
    return tuple((one.pid, int(one.usedGpuMemory)) for one in found if one.usedGpuMemory is not None)


def _temperature(nvml: Any, handle: Any) -> float | None:
    try:
        return float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
    except Exception:  # some cards have no sensor
        return None


def text_of(value: str | bytes) -> str:
    """A name, in whichever of the two types this version of the library has it."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
