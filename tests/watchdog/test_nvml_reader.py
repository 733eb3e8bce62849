"""The driver's library, through the real `nvidia-ml-py`, over a stand-in that is compiled here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.nvml_library import compiled

ROOT = Path(__file__).parents[2]

# One look for each line on standard input, as JSON on standard output.
LOOKER = """
import dataclasses, json, sys, threading, time
from watchdog.observation import Container, Unknown
from watchdog.probe import Probe
from watchdog.readers import NvmlReader
reader = NvmlReader(Probe("the driver", threading.Event()), float(sys.argv[1]))
container = Container("c", "llm-sidecar", "running")
def shown(value):
    if isinstance(value, Unknown): return value.cause
    if isinstance(value, dict): return {k: shown(v) for k, v in value.items()}
    if isinstance(value, tuple): return [dataclasses.astuple(v) for v in value]
    return [value.used_mib, value.total_mib]
for line in sys.stdin:
    began = time.monotonic()
    found = getattr(reader, line.strip())(container)
    print(json.dumps([shown(found), time.monotonic() - began, threading.active_count()]), flush=True)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in, compiled under the name by which the driver's library is loaded."""
    return compiled(tmp_path_factory.mktemp("nvml"))


class Driver:
    """A process with that library, and the file that says what the library says."""

    def __init__(self, library: Path | None, script: Path, deadline_s: float = 10.0) -> None:
        self.script = script
        found = {"NVML_SCRIPT": str(script)} | ({"LD_LIBRARY_PATH": str(library)} if library else {})
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOOKER, str(deadline_s)],
            cwd=ROOT,
            env=os.environ | found,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *lines: str, what: str = "look") -> Any:
        """One look, with the driver saying this."""
        return self.timed(*lines, what=what)[0]

    def timed(self, *lines: str, what: str = "look") -> Any:
        """The same, with its seconds and the threads of the process."""
        self.script.write_text("\n".join(lines) + "\n")
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """Whatever hangs inside."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def driver(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """One process for all looks: what one look found must not colour the next."""
    found = Driver(library, tmp_path_factory.mktemp("script") / "script")
    yield found
    found.close()


A, B = "GPU-aaaa", "GPU-bbbb"
GOOD = f"card {A} 9000 24576 0 0"


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ([GOOD], {A: [9000, 24576]}),
        ([GOOD, f"card {B} 1 8192 0 0"], {A: [9000, 24576], B: [1, 8192]}),
        (["v1only", GOOD], {A: [9512, 24576]}),  # an old driver counts what it reserves
        ([GOOD, f"card {B} 1 8192 0 3"], {A: [9000, 24576], B: "not_available"}),
        ([GOOD, f"card {B} 1 8192 0 15"], {A: [9000, 24576], B: "off_the_bus"}),
        ([GOOD, f"card {B} 1 8192 0 999"], {A: [9000, 24576], B: "off_the_bus"}),
        ([GOOD, f"card {B} 1 8192 15 0"], {A: [9000, 24576], "card 1": "off_the_bus"}),
        ([f"card {A} 9000 8000 0 0"], {A: "above_total"}),
        (["shutdown 999", GOOD], {A: [9000, 24576]}),
        (
            [f"card {A} 0 0 0 4", "part 0 MIG-1 1200 4864", "part 0 MIG-2 5 4864"],
            {"MIG-1": [1200, 4864], "MIG-2": [5, 4864]},
        ),
        ([f"card {A} 0 0 0 4"], {A: "insufficient_permissions"}),
        (["init 999", GOOD], "gpu_lost"),
        (["init 9"], "driver_not_loaded"),
        (["init 18"], "driver_mismatch"),
        (["init 4"], "insufficient_permissions"),
        (["init 77"], "failed"),
        (["count 999", GOOD], "gpu_lost"),
        (["count 15", GOOD], "off_the_bus"),
        ([], "no_devices"),
    ],
)
def test_readings(driver: Driver, script: list[str], found: object) -> None:
    assert driver.ask(*script) == found
    assert driver.ask(GOOD) == {A: [9000, 24576]}


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ([GOOD], []),
        ([GOOD, "process 0 4711 9000"], [[4711, A, 9000.0]]),
        (
            [GOOD, f"card {B} 1 8192 0 0", "process 0 1 5", "process 1 2 -1", "process 1 3 7"],
            [[1, A, 5.0], [2, B, None], [3, B, 7.0]],
        ),
        ([GOOD, "processes 3"], "not_available"),
        (["init 999"], "gpu_lost"),
    ],
)
def test_processes(driver: Driver, script: list[str], found: object) -> None:
    assert driver.ask(*script, what="processes") == found


def test_a_hang_is_unknown_in_time_and_nothing_piles_up(library: Path, tmp_path: Path) -> None:
    driver = Driver(library, tmp_path / "script", deadline_s=0.3)
    try:
        assert driver.ask(GOOD) == {A: [9000, 24576]}
        for _ in range(4):
            found, seconds, threads = driver.timed("hang")
            assert found == "probe_hung"
            assert seconds < 3.0
            assert threads == 2
    finally:
        driver.close()


def test_no_library_is_a_machine_without_a_card(tmp_path: Path) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("here is a driver")
    driver = Driver(None, tmp_path / "script")
    try:
        assert driver.ask(GOOD) == "no_gpu"
    finally:
        driver.close()


def test_the_driver_is_seen_by_the_other_reader_too(library: Path) -> None:
    """What tells a machine without a card from a container without the tool."""
    code = "from watchdog.readers import driver_is_here; print(driver_is_here())"
    began_s = time.monotonic()
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"LD_LIBRARY_PATH": str(library)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "True"
    assert time.monotonic() - began_s < 20
