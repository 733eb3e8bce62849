"""What this process holds, what it may still take, and how it gives back.

On a card the allocator has its cap (`sidecar.worker.load`); on a CPU the kernel holds this process:
RLIMIT_DATA bounds what it has mapped for writing, which a step's memory comes from.
"""

from __future__ import annotations

import ctypes
import gc
import resource

import torch

from sidecar import budget, room
from sidecar.budget import MIB
from sidecar.generation import EngineStats

_PAGE_BYTES = resource.getpagesize()


def resident_bytes() -> int:
    """This process's resident memory (proc(5), statm)."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * _PAGE_BYTES


def hold(plan: budget.Plan, device: torch.device) -> None:
    """From here on the kernel refuses what would carry this process above its plan.

    For when all is loaded, the steps' kernels are written and the threads run: their stacks are mapped,
    hardly touched, and count. Raises ConfigError where not even one step would fit.
    """
    if plan.budget_mib is None or device.type == "cuda":
        return
    release_memory(device)
    growth_mib = budget.growth_mib(plan, resident_bytes() / MIB, _heap_holes_bytes() / MIB)
    limit = _data_bytes() + int(growth_mib * MIB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def free_mib(device: torch.device) -> float:
    """What may still be taken now: of the limit, and of what the machine, its container or the card has."""
    if device.type == "cuda":
        driver, total = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device)
        capped = torch.cuda.get_per_process_memory_fraction(device) * total - reserved
        return (max(min(driver, capped), 0) + reserved - torch.cuda.memory_allocated(device)) / MIB
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    there_mib = room.free_memory_mib()
    if limit == resource.RLIM_INFINITY:
        return there_mib
    return max(min(there_mib, (limit - _data_bytes()) / MIB), 0.0)


def release_memory(device: torch.device) -> float:
    """Give back what nobody refers to any more; the MiB that came free."""
    before = _held_bytes(device)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif hasattr(_LIBC, "malloc_trim"):  # glibc's own
        _LIBC.malloc_trim(0)
    return (before - _held_bytes(device)) / MIB


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


def _held_bytes(device: torch.device) -> int:
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else resident_bytes()


def _data_bytes() -> int:
    """What RLIMIT_DATA is compared with, and the main thread's stack, which is small (proc(5), statm)."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[5]) * _PAGE_BYTES


class _MallocInfo(ctypes.Structure):
    """mallinfo(3), struct mallinfo2."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


_LIBC = ctypes.CDLL(None)


def _heap_holes_bytes() -> int:
    """What malloc has mapped and given to nobody: it can be touched again without a mapping."""
    if not hasattr(_LIBC, "mallinfo2"):  # glibc before 2.33, or another libc
        return 0
    _LIBC.mallinfo2.restype = _MallocInfo
    return int(_LIBC.mallinfo2().fordblks)
