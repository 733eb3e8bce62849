"""One look, put together from a real engine client, a real socket and a card that says what it is told."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from tests.fakes.docker_daemon import UUID, Answer, csv
from tests.watchdog.conftest import Live
from tests.watchdog.test_report import SAID, sidecar
from watchdog import report
from watchdog.container import find
from watchdog.observation import Card, Container, Observation, Unknown
from watchdog.observer import Observer
from watchdog.probe import Probe
from watchdog.readers import ExecReader
from watchdog.state import Limits


def observed(live: Live, path: str) -> Observation:
    reader = ExecReader(live.engine, Probe("nvidia-smi", live.stop), 5.0)
    finds = partial(find, live.engine, "llm-sidecar", "llm-sidecar")
    probe = Probe("the Docker Engine", live.stop)
    return Observer(finds, reader, partial(report.ask, path), Limits(), lambda: 7.0, probe).look()


def said(live: Live, used: float, processes: str = "") -> None:
    live.docker.smi = lambda argv: Answer(processes.encode() if "compute-apps" in argv[1] else csv(used))


def test_under_the_limit_nobody_is_asked_whose_it_is(live: Live, tmp_path: Path) -> None:
    seen = observed(live, str(tmp_path / "absent"))
    assert seen.now_s == 7.0
    assert isinstance(seen.target, Container)
    assert (seen.cards, seen.report, seen.phase) == ({UUID: Card(9000.0, 24576.0)}, None, "ready")
    assert live.docker.called("/start") == 1


@pytest.mark.parametrize(
    ("processes", "own", "witness", "rest"),
    [
        ("", 6500.5, "its own report", ""),
        (f"1001, {UUID}, 8000\n", 8000.0, "the driver", ""),
        (f"1001, {UUID}, 8000\n7, {UUID}, 4000\n", 8000.0, "the driver", "process 7 holds 4000 MiB"),
        (f"7, {UUID}, 4000\n", 6500.5, "its own report", "process 7 holds 4000 MiB"),
    ],
)
def test_above_it_is_told_apart(
    live: Live, tmp_path: Path, processes: str, own: float, witness: str, rest: str
) -> None:
    said(live, 12000, processes)
    line = json.dumps(SAID).encode() + b"\n"
    with sidecar(tmp_path / "control.sock", lambda connection: connection.sendall(line)) as path:
        seen = observed(live, path)
    assert seen.cards == {UUID: Card(12000.0, 24576.0, own, witness, rest)}
    assert seen.report is not None


def test_near_the_limit_too(live: Live, tmp_path: Path) -> None:
    said(live, 10300, f"1001, {UUID}, 8000\n")
    seen = observed(live, str(tmp_path / "absent"))
    assert seen.cards == {UUID: Card(10300.0, 24576.0, 8000.0, "the driver")}


def test_a_stale_report_is_no_witness(live: Live, tmp_path: Path) -> None:
    said(live, 12000)
    line = json.dumps(SAID | {"age_s": 121}).encode() + b"\n"
    with sidecar(tmp_path / "control.sock", lambda connection: connection.sendall(line)) as path:
        assert observed(live, path).cards == {UUID: Card(12000.0, 24576.0)}


def test_a_stopped_container_is_asked_nothing(live: Live, tmp_path: Path) -> None:
    live.docker.state = "exited"
    seen = observed(live, str(tmp_path / "absent"))
    assert (seen.running, seen.look, seen.report) == (None, {}, None)
    assert live.docker.called("/exec") == 0


def test_no_engine_is_a_value(live: Live, tmp_path: Path) -> None:
    live.docker.faults["list"] = 500
    seen = observed(live, str(tmp_path / "absent"))
    assert isinstance(seen.target, Unknown)
    assert seen.phase == "unknown"
