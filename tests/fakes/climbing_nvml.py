"""A driver with one card, whose memory climbs by 100 MiB a look, falls at the tenth, and stays."""

from __future__ import annotations

import threading
from types import SimpleNamespace

MIB = 1024 * 1024
FIRST_MIB, TOP_MIB, LAST_MIB = 500, 1400, 900
passed_top = threading.Event()
_looks = 0


def nvmlInit() -> None:
    global _looks
    _looks = 0
    passed_top.clear()


def nvmlShutdown() -> None:
    """Always well."""


def nvmlDeviceGetCount() -> int:
    return 1


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    return index


def nvmlDeviceGetMemoryInfo(handle: int) -> SimpleNamespace:
    global _looks
    _looks += 1
    if _looks > 10:
        passed_top.set()
    return SimpleNamespace(used=(400 + 100 * _looks if _looks <= 10 else LAST_MIB) * MIB, total=12288 * MIB)


def nvmlDeviceGetName(handle: int) -> bytes:
    return b"Climbing card"


def nvmlSystemGetDriverVersion() -> str:
    return "580.65"
