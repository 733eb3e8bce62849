"""What an NVIDIA driver says of itself, and who holds the memory of its cards. Never raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sidecar import gpu
from sidecar.budget import MIB
from sidecar.doctor.facts import Card, Driver, Holder, Unknown
from sidecar.gpu import GpuUnreadable

PCI, PROC, DEV = Path("/sys/bus/pci/devices"), Path("/proc"), Path("/dev")
# PCI's numbers: the vendor, and the class of what draws pictures or computes them (0x0300, 0x0302).
NVIDIA, DISPLAY = "0x10de", "0x03"


def read(library: str = "pynvml", deadline_s: float = gpu.LOOK_SECONDS) -> Driver | Unknown:
    """Ask it once."""
    found = gpu.ask(_driver, library, deadline_s)
    return Unknown(found.reason) if isinstance(found, GpuUnreadable) else found


def cards_on_bus(pci: Path = PCI) -> int:
    """NVIDIA cards that the kernel sees, driver or none."""
    return sum(
        _first_line(device / "vendor") == NVIDIA and _first_line(device / "class").startswith(DISPLAY)
        for device in pci.glob("*")
    )


def unlinked_nodes(dev: Path = DEV) -> tuple[str, ...]:
    """The driver's device nodes to which nothing in /dev/char points."""
    linked = {link.resolve() for link in (dev / "char").glob("*")}
    nodes = sorted(node for node in dev.glob("nvidia*") if node.is_char_device())
    return tuple(node.name for node in nodes if node.resolve() not in linked)


def process_name(pid: int, proc: Path = PROC) -> str:
    """What the kernel calls it; empty for a process that is not to be seen from here."""
    return _first_line(proc / str(pid) / "comm")


def _driver(nvml: Any) -> Driver:
    cards = tuple(_card(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
    return Driver(gpu.text_of(nvml.nvmlSystemGetDriverVersion()), _cuda(nvml), cards)


def _cuda(nvml: Any) -> tuple[int, int] | None:
    whole = _or_none(nvml.nvmlSystemGetCudaDriverVersion)
    return None if whole is None else (whole // 1000, whole % 1000 // 10)


def _card(nvml: Any, index: int) -> Card:
    reading, handle = gpu.card(nvml, index), nvml.nvmlDeviceGetHandleByIndex(index)
    return Card(
        index=index,
        name=reading.name,
        # What the driver reserves for itself is not free.
        free_mib=(reading.memory_total_bytes - reading.memory_used_bytes) // MIB,
        total_mib=reading.memory_total_bytes // MIB,
        capability=_or_none(lambda: tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle))),
        holders=_or_none(lambda: _holders(nvml, handle)),
    )


def _holders(nvml: Any, handle: Any) -> tuple[Holder, ...]:
    """Those that compute and those that draw; a process may do both, with one figure."""
    found = {holder.pid: holder for holder in _listed(nvml.nvmlDeviceGetComputeRunningProcesses(handle))}
    drawing = _or_none(lambda: nvml.nvmlDeviceGetGraphicsRunningProcesses(handle)) or ()
    found = {holder.pid: holder for holder in _listed(drawing)} | found
    return tuple(sorted(found.values(), key=lambda holder: -(holder.held_mib or 0)))


def _listed(processes: Any) -> Iterator[Holder]:
    for process in processes:
        held = process.usedGpuMemory
        yield Holder(int(process.pid), process_name(process.pid), None if held is None else held // MIB)


def _or_none(ask: Callable[[], Any]) -> Any:
    """Some drivers do not know the question; the rest of their answers stands."""
    try:
        return ask()
    except Exception:  # each of the library's errors says that it is not known
        return None


def _first_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
