"""The part of NVML's Python binding that `sidecar.gpu` uses: two cards, one without a sensor."""

from __future__ import annotations

from types import SimpleNamespace

NVML_TEMPERATURE_GPU = 0


def nvmlInit() -> None:
    """Always there."""


def nvmlShutdown() -> None:
    """As some drivers do."""
    raise RuntimeError("already shut down")


def nvmlDeviceGetCount() -> int:
    return 2


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    return index


def nvmlDeviceGetMemoryInfo(handle: int) -> SimpleNamespace:
    return SimpleNamespace(used=1024, total=4096)


def nvmlDeviceGetComputeRunningProcesses(handle: int) -> list[SimpleNamespace]:
    if handle == 1:
        raise RuntimeError("not supported")
    return [SimpleNamespace(pid=7, usedGpuMemory=512), SimpleNamespace(pid=8, usedGpuMemory=None)]


def nvmlDeviceGetName(handle: int) -> bytes:
    return b"Card"


def nvmlDeviceGetUUID(handle: int) -> str:
    return f"GPU-{handle}"


def nvmlDeviceGetTemperature(handle: int, sensor: int) -> int:
    if handle == 1:
        raise RuntimeError("no sensor")
    return 61
