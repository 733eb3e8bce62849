"""How much memory the cards hold: through nvidia-smi in the container, or through the driver here.

A reader reads. It never decides, never raises, and turns every failure into an Unknown with a name.
What may hang runs on a `Probe`; the deadline is the reader's whole time for one look.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any, Protocol

from watchdog import smi
from watchdog.engine import Engine, EngineFailure
from watchdog.observation import Card, Container, Look, Reading, Unknown
from watchdog.probe import Probe
from watchdog.smi import Process

NVML_LIBRARY = "libnvidia-ml.so.1"
# NVML's own codes (nvml.h), as far as they mean something to somebody.
_NVML = {
    3: "not_available",
    4: "insufficient_permissions",
    9: "driver_not_loaded",
    12: "no_gpu",
    15: "off_the_bus",
    18: "driver_mismatch",
    999: "gpu_lost",
}


class Reader(Protocol):
    """One look at the cards, and who is on them."""

    def look(self, container: Container) -> Look:
        """The memory of every card."""

    def processes(self, container: Container) -> tuple[Process, ...] | Unknown:
        """The processes on the cards, as far as the driver tells."""


class ExecReader:
    """Runs nvidia-smi in the sidecar's container (seed 000's way).

    A hung nvidia-smi can not be killed from outside its container. So its exec is remembered, and
    until the engine says that it has ended, no other is started.
    """

    def __init__(self, engine: Engine, probe: Probe, deadline_s: float = 10.0) -> None:
        self._engine = engine
        self._probe = probe
        self._deadline_s = deadline_s
        self._unfinished: str | None = None

    def look(self, container: Container) -> Look:
        """The memory of every card; MIG's parts where a card has no figure of its own."""
        return self._probe.ask(lambda: self._look(container), self._deadline_s)

    def processes(self, container: Container) -> tuple[Process, ...] | Unknown:
        """The processes that the container's nvidia-smi lists."""
        return self._probe.ask(lambda: self._processes(container), self._deadline_s)

    def _look(self, container: Container) -> Look:
        answer = self._run(container, smi.MEMORY, smi.CSV_BYTES_MAX)
        if isinstance(answer, Unknown):
            missing = answer.cause == "not_found" and not driver_is_here()
            return Unknown("no_gpu", f"{answer.text}, and no driver here") if missing else answer
        found = smi.readings(*answer)
        if isinstance(found, Unknown) and found.cause == "not_found" and not driver_is_here():
            return Unknown("no_gpu", f"{found.text}, and no driver here")
        if smi.needs_parts(found):
            parts = self._run(container, smi.EVERYTHING, smi.XML_BYTES_MAX)
            return found if isinstance(parts, Unknown) else smi.with_parts(found, *parts)
        return found

    def _processes(self, container: Container) -> tuple[Process, ...] | Unknown:
        answer = self._run(container, smi.PROCESSES, smi.CSV_BYTES_MAX)
        return answer if isinstance(answer, Unknown) else smi.processes(*answer)

    def _run(
        self, container: Container, argv: tuple[str, ...], bytes_max: int
    ) -> tuple[bytes, int] | Unknown:
        """What the command printed, and its status."""
        try:
            if self._still_out():
                return Unknown("probe_hung", "the last nvidia-smi has not returned yet")
            exec_id = self._unfinished = self._engine.execute(container.name, argv)
            output = self._engine.output(exec_id, self._deadline_s, bytes_max)
            status = self._engine.exit_status(exec_id)
        except EngineFailure as failure:
            return self._failed(failure)
        if status is None:
            # It printed more than anybody reads, or closed its output and went on.
            return smi.unknown("too_large") if len(output) > bytes_max else smi.unknown("cut")
        self._unfinished = None
        return output, status

    def _failed(self, failure: EngineFailure) -> Unknown:
        text = failure.text.lower()
        if "executable file not found" in text or "no such file" in text:
            self._unfinished = None
            return smi.unknown("not_found")
        if failure.cause == "docker_timeout":
            return Unknown("probe_hung", f"nvidia-smi did not end within {self._deadline_s:g} s")
        return failure.as_unknown()

    def _still_out(self) -> bool:
        if self._unfinished is None:
            return False
        try:
            out = self._engine.exit_status(self._unfinished) is None
        except EngineFailure as failure:
            if failure.cause != "container_not_found":
                raise
            out = False  # an exec ends with its container
        self._unfinished = self._unfinished if out else None
        return out


class NvmlReader:
    """Asks the driver's library in this container. Needs no right in the sidecar's."""

    def __init__(self, probe: Probe, deadline_s: float = 10.0) -> None:
        self._probe = probe
        self._deadline_s = deadline_s

    def look(self, container: Container) -> Look:  # noqa: ARG002 - the cards are the same for all
        """The memory of every card that this container sees."""
        return self._probe.ask(lambda: _with_nvml(_cards), self._deadline_s)

    def processes(self, container: Container) -> tuple[Process, ...] | Unknown:  # noqa: ARG002
        """The processes on them, by the host's numbers."""
        return self._probe.ask(lambda: _with_nvml(_on_cards), self._deadline_s)


def driver_is_here() -> bool:
    """Whether the driver's library can be loaded in this very process."""
    try:
        ctypes.CDLL(NVML_LIBRARY)
    except OSError:
        return False
    return True


def _with_nvml(work: Callable[[Any], Any]) -> Any:
    """Open, ask, close. Each look opens anew: a library that was opened before the driver was
    reloaded answers from the past."""
    import pynvml  # 3 MB that the other reader does not need

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return _unknown(error)
    try:
        return work(pynvml)
    except pynvml.NVMLError as error:
        return _unknown(error)
    finally:
        _close(pynvml)


def _close(nvml: Any) -> None:
    try:
        nvml.nvmlShutdown()
    except nvml.NVMLError:
        # The next look opens it anew and says what is wrong then.
        time.sleep(0)


def _cards(nvml: Any) -> Look:
    found: dict[str, Reading] = {}
    for index in range(nvml.nvmlDeviceGetCount()):
        found |= _card(nvml, index)
    return found or smi.unknown("no_devices")


def _card(nvml: Any, index: int) -> dict[str, Reading]:
    """One card, or its parts; a card that does not even have a name hides none of the others."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
    except nvml.NVMLError as error:
        return {f"card {index}": _unknown(error, of_a_card=True)}
    reading = _memory(nvml, handle)
    parts = _parts(nvml, handle) if isinstance(reading, Unknown) else {}
    return parts or {uuid: reading}


def _memory(nvml: Any, handle: Any) -> Reading:
    try:
        memory = _memory_info(nvml, handle)
    except nvml.NVMLError as error:
        return _unknown(error, of_a_card=True)
    # Whole MiB, as nvidia-smi prints them: both readers have to agree about the line.
    used_mib, total_mib = float(int(memory.used) >> 20), float(int(memory.total) >> 20)
    return Card(used_mib, total_mib) if used_mib <= total_mib else smi.unknown("above_total")


def _memory_info(nvml: Any, handle: Any) -> Any:
    """As nvidia-smi shows it: the first version counts what the driver reserves (300 to 600 MiB) as used."""
    try:
        return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except (nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NotSupported):
        return nvml.nvmlDeviceGetMemoryInfo(handle)


def _parts(nvml: Any, handle: Any) -> dict[str, Reading]:
    """A card that MIG has split: each part has a name and a figure of its own."""
    found: dict[str, Reading] = {}
    try:
        for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            found[_text(nvml.nvmlDeviceGetUUID(part))] = _memory(nvml, part)
    except nvml.NVMLError:
        return found
    return found


def _on_cards(nvml: Any) -> tuple[Process, ...]:
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle):
            held = process.usedGpuMemory
            found.append(Process(int(process.pid), uuid, None if held is None else int(held) / 2**20))
    return tuple(found)


def _unknown(error: Any, *, of_a_card: bool = False) -> Unknown:
    """999 at the start is a container without its card; of one card it is a card in trouble."""
    cause = "off_the_bus" if of_a_card and error.value == 999 else _NVML.get(error.value, "failed")
    return Unknown(cause, f"NVML: {error} ({error.value})")


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
