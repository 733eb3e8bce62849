"""nvidia-smi in the container, through the real SDK: frames, statuses, hangs, and one at a time."""

from __future__ import annotations

import ctypes.util
import struct
import threading
import time

import pytest

from tests.fakes.docker_daemon import ERR, OUT, UUID, Answer, csv
from tests.watchdog.conftest import Live, eventually
from watchdog import smi
from watchdog.observation import Card, Container, Look, Unknown
from watchdog.probe import Probe
from watchdog.readers import ExecReader, driver_is_here
from watchdog.smi import Process

CONTAINER = Container("c" * 64, "llm-sidecar", "running")


def reader(live: Live, deadline_s: float = 5.0) -> ExecReader:
    return ExecReader(live.engine, Probe("nvidia-smi", live.stop), deadline_s)


def cause(look: Look | tuple[Process, ...]) -> str:
    assert isinstance(look, Unknown), look
    return look.cause


def frame(text: bytes, stream: int = OUT, length: int | None = None) -> bytes:
    return struct.pack(">BxxxL", stream, len(text) if length is None else length) + text


def test_a_reading(live: Live) -> None:
    assert reader(live).look(CONTAINER) == {UUID: Card(9000.0, 24576.0)}
    assert next(iter(live.docker.execs.values()))[0] == list(smi.MEMORY)


@pytest.mark.parametrize(
    "raw",
    [
        frame(csv(9000)[:7]) + frame(csv(9000)[7:]),
        frame(b"") + frame(csv(9000)),
        b"".join(frame(bytes([byte])) for byte in csv(9000)),
    ],
)
def test_however_it_is_framed(live: Live, raw: bytes) -> None:
    live.docker.smi = lambda _: Answer(raw=raw)
    assert reader(live).look(CONTAINER) == {UUID: Card(9000.0, 24576.0)}


def test_however_slowly_it_comes(live: Live) -> None:
    live.docker.smi = lambda _: Answer(csv(9000), trickle_s=0.002)
    assert reader(live).look(CONTAINER) == {UUID: Card(9000.0, 24576.0)}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(b"", 0), "empty"),
        (Answer(b"nonsense\n", 0), "garbage"),
        (Answer(csv(9000), 255), "failed"),
        (Answer(b"Failed to initialize NVML: Unknown Error\n", 255, ERR), "gpu_lost"),
        (Answer(b"", 9), "driver_not_loaded"),
        (Answer(csv(9000)[:-4], 0), "cut"),
        (Answer(b"x" * 200_000, 0), "too_large"),
        (Answer(raw=frame(csv(9000), length=4_000_000_000)), None),
        (Answer(raw=b"\x01\x00\x00"), "empty"),
        (Answer(raw=b"HTTP/1.1 200 OK\r\n\r\nwhat?"), "garbage"),
        (Answer(refusal=(409, "container is paused")), "container_conflict"),
        (Answer(refusal=(404, "No such container")), "container_not_found"),
        (Answer(refusal=(500, "a fault of the daemon")), "docker_error"),
    ],
)
def test_every_odd_end_has_a_name(live: Live, answer: Answer, expected: str | None) -> None:
    live.docker.smi = lambda _: answer
    look = reader(live).look(CONTAINER)
    if expected is None:
        assert look == {UUID: Card(9000.0, 24576.0)}
    else:
        assert cause(look) == expected


@pytest.mark.parametrize("route", ["exec", "start", "inspect"])
@pytest.mark.parametrize("fault", [404, 409, 500, "close", "garbage", "cut"])
def test_every_fault_of_every_call_is_a_value_and_passes(live: Live, route: str, fault: int | str) -> None:
    eyes = reader(live)
    live.docker.faults[route] = fault
    assert isinstance(eyes.look(CONTAINER), Unknown)
    live.docker.faults.clear()
    assert eyes.look(CONTAINER) == {UUID: Card(9000.0, 24576.0)}


NOT_FOUND = 'OCI runtime exec failed: exec: "nvidia-smi": executable file not found in $PATH: unknown'


@pytest.mark.parametrize(
    "answer",
    [
        Answer(refusal=(400, NOT_FOUND)),
        Answer(refusal=(500, NOT_FOUND)),
        Answer(NOT_FOUND.encode(), 126),
        Answer(b"", 127),
    ],
)
@pytest.mark.skipif(driver_is_here(), reason="here is a driver, so there is a card to miss")
def test_no_tool_and_no_driver_is_a_machine_without_a_card(live: Live, answer: Answer) -> None:
    live.docker.smi = lambda _: answer
    assert cause(reader(live).look(CONTAINER)) == "no_gpu"


def test_a_driver_is_looked_for_by_its_librarys_name() -> None:
    assert driver_is_here() == (ctypes.util.find_library("nvidia-ml") is not None)


class TestHung:
    """P26, P27: unknown within the deadline, and never two at once."""

    def test_unknown_in_time_and_one_outstanding(self, live: Live) -> None:
        live.docker.smi = lambda _: Answer(b"", status=None)
        probe = Probe("nvidia-smi", live.stop)
        eyes = ExecReader(live.engine, probe, 0.3)
        for _ in range(5):
            began_s = time.monotonic()
            assert cause(eyes.look(CONTAINER)) == "probe_hung"
            assert time.monotonic() - began_s < 3.0
            eventually(lambda: not probe.busy)  # given up here, and still out in the container
        assert live.docker.called("/start") == 1

    def test_it_reads_again_once_the_tool_has_returned(self, live: Live) -> None:
        live.docker.smi = lambda _: Answer(b"", status=None)
        eyes = reader(live, deadline_s=0.3)
        assert cause(eyes.look(CONTAINER)) == "probe_hung"
        live.docker.smi = lambda _: Answer(csv(9000))
        assert cause(eyes.look(CONTAINER)) == "probe_hung"
        (argv, _), exec_id = next(iter(live.docker.execs.values())), next(iter(live.docker.execs))
        live.docker.execs[exec_id] = (argv, Answer(status=0))
        live.docker.hanging.set()
        eventually(lambda: eyes.look(CONTAINER) == {UUID: Card(9000.0, 24576.0)})

    def test_a_restart_of_the_container_ends_it_too(self, live: Live) -> None:
        live.docker.smi = lambda _: Answer(b"", status=None)
        eyes = reader(live, deadline_s=0.3)
        assert cause(eyes.look(CONTAINER)) == "probe_hung"
        live.docker.execs.clear()
        live.docker.hanging.set()
        live.docker.smi = lambda _: Answer(csv(9000))
        eventually(lambda: eyes.look(CONTAINER) == {UUID: Card(9000.0, 24576.0)})

    def test_a_grandchild_that_holds_the_output(self, live: Live) -> None:
        live.docker.smi = lambda _: Answer(csv(9000), 0, held_s=2.0)
        eyes = reader(live, deadline_s=0.3)
        began_s = time.monotonic()
        assert cause(eyes.look(CONTAINER)) == "probe_hung"
        assert time.monotonic() - began_s < 1.5
        live.docker.smi = lambda _: Answer(csv(9000))
        eventually(lambda: eyes.look(CONTAINER) == {UUID: Card(9000.0, 24576.0)})

    def test_output_that_never_ends(self, live: Live) -> None:
        live.docker.smi = lambda _: Answer(b"x" * 5000, trickle_s=0.001)
        assert cause(reader(live, deadline_s=0.3).look(CONTAINER)) == "probe_hung"

    @pytest.mark.parametrize("route", ["exec", "start", "inspect"])
    def test_a_hung_engine(self, live: Live, route: str) -> None:
        live.docker.faults[route] = "hang"
        began_s = time.monotonic()
        assert cause(reader(live, deadline_s=0.3).look(CONTAINER)) == "probe_hung"
        assert time.monotonic() - began_s < 3.0

    def test_threads_do_not_pile_up(self, live: Live) -> None:
        live.docker.faults["exec"] = "hang"
        eyes = reader(live, deadline_s=0.05)
        for _ in range(20):
            eyes.look(CONTAINER)
        assert sum(thread.name == "nvidia-smi" for thread in threading.enumerate()) <= 1


class TestProcesses:
    """Who is on the card, where the driver tells."""

    def test_listed(self, live: Live) -> None:
        row = f"1000, {UUID}, 9000\n".encode()
        live.docker.smi = lambda argv: Answer(row if "compute-apps" in argv[1] else csv(9000))
        assert reader(live).processes(CONTAINER) == (Process(1000, UUID, 9000.0),)

    def test_nobody(self, live: Live) -> None:
        live.docker.smi = lambda _: Answer(b"")
        assert reader(live).processes(CONTAINER) == ()

    def test_a_fault_is_a_value(self, live: Live) -> None:
        live.docker.faults["exec"] = 500
        assert cause(reader(live).processes(CONTAINER)) == "docker_error"


def test_mig_is_asked_for_its_parts(live: Live) -> None:
    xml = (
        f'<gpu id="0"><current_mig>Enabled</current_mig><uuid>{UUID}</uuid><mig_device><index>3</index>'
        "<fb_memory_usage><total>4864 MiB</total><used>1200 MiB</used></fb_memory_usage></mig_device></gpu>"
    )
    answers = {"-q": Answer(xml.encode())}
    live.docker.smi = lambda argv: answers.get(argv[1], Answer(f"{UUID}, [N/A], [N/A]\n".encode()))
    assert reader(live).look(CONTAINER) == {f"{UUID}/3": Card(1200.0, 4864.0)}
