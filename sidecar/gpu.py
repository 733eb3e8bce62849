"""What the graphics card says, as a value or as a named failure. Never raises.

Reading takes milliseconds when all is well and may hang when a driver does not answer, so it
happens on a thread, and everybody else looks at the last reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
from dataclasses import dataclass
from typing import Any

log = logging.getLogger("sidecar.gpu")


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One card: bytes used and in all, degrees Celsius where the card says."""

    index: int
    name: str
    uuid: str
    memory_used_bytes: int
    memory_total_bytes: int
    temperature_celsius: float | None


@dataclass(frozen=True, slots=True)
class GpuUnreadable:
    """No reading, and why. Unknown is not zero."""

    reason: str


GpuLook = tuple[GpuReading, ...] | GpuUnreadable


def look(library: str = "pynvml") -> GpuLook:
    """Read every card once. Blocks for as long as the driver takes."""
    try:
        # Imported here: the library is only of use where a driver is.
        nvml: Any = importlib.import_module(library)
        nvml.nvmlInit()
    except Exception as error:  # a missing driver has many names; all are a value
        return GpuUnreadable(_reason(error))
    try:
        return tuple(_card(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
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


def _card(nvml: Any, index: int) -> GpuReading:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return GpuReading(
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        memory_used_bytes=int(memory.used),
        memory_total_bytes=int(memory.total),
        temperature_celsius=_temperature(nvml, handle),
    )


def _temperature(nvml: Any, handle: Any) -> float | None:
    try:
        return float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
    except Exception:  # some cards have no sensor
        return None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
