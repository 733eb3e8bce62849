"""What this process holds, as the worker reports it once a second."""

from __future__ import annotations

import gc
import resource

import torch

from sidecar.budget import MIB
from sidecar.generation import EngineStats

_PAGE_BYTES = resource.getpagesize()


def resident_bytes() -> int:
    """This process's resident memory (proc(5), statm)."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * _PAGE_BYTES


def release_memory(device: torch.device) -> float:
    """Give back what nobody refers to any more; the MiB that came free on the device."""
    gc.collect()
    if device.type != "cuda":
        return 0.0
    before = torch.cuda.memory_reserved(device)
    torch.cuda.empty_cache()
    return (before - torch.cuda.memory_reserved(device)) / MIB


def stats(device: torch.device, running: int, pages_used: int, pages_cached: int) -> EngineStats:
    """The figures of now. The device's are torch's own: what it allocated, what it reserved."""
    cuda = device.type == "cuda"
    return EngineStats(
        running=running,
        pages_used=pages_used,
        pages_cached=pages_cached,
        memory_allocated_bytes=torch.cuda.memory_allocated(device) if cuda else 0,
        memory_reserved_bytes=torch.cuda.memory_reserved(device) if cuda else 0,
        resident_bytes=resident_bytes(),
        cuda_available=torch.cuda.is_available(),
        cuda_device_count=torch.cuda.device_count(),
        device_name=torch.cuda.get_device_name(device) if cuda else "",
    )
