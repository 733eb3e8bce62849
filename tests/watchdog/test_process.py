"""The program itself: a real process, a fake engine, signals, exit codes, and how much it takes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.docker_daemon import Answer, csv, serving
from tests.watchdog.conftest import Live, eventually
from tests.watchdog.program import ROOT, Program
from tests.watchdog.test_report import sidecar
from watchdog.readers import driver_is_here


@pytest.fixture
def run(live: Live) -> Iterator[Any]:
    started: list[Program] = []

    def start(*argv: str, **environ: str) -> Program:
        started.append(Program(live.host, live.path.parent, *argv, **environ))
        return started[-1]

    yield start
    for program in started:
        program.kill()


def stop_takes_s(program: Program) -> float:
    began_s = time.monotonic()
    program.process.send_signal(signal.SIGTERM)
    code, _, _ = program.end(20)
    assert code == 0
    return time.monotonic() - began_s


def test_three_highs_restart_once_and_the_new_boot_is_left_alone(live: Live, run: Any) -> None:
    live.docker.smi = lambda _: Answer(csv(11000 if live.docker.boot == 1 else 9000))
    program = run()
    eventually(lambda: live.docker.restarts() == 1)
    eventually(lambda: program.get("/health")["message"] == "under the limit")
    assert live.docker.restarts() == 1
    assert any("11000, 11000, 11000 MiB > 10752" in said for said in program.sentences())
    assert stop_takes_s(program) < 5.0


class Sidecar:
    """Its control socket: the boot, phase and drain follow the fake engine's."""

    def __init__(self, live: Live, own_mib: float) -> None:
        self.live = live
        self.own_mib = own_mib
        self.loading = 2

    def answer(self, connection: socket.socket) -> None:
        """One report; a new boot loads at first."""
        boot = self.live.docker.boot
        self.loading -= boot > 1
        said = {
            "boot_id": f"b{boot}",
            "phase": "load" if boot > 1 and self.loading > 0 else "ready",
            "own_mib": self.own_mib,
            "age_s": 0.1,
            "running": 2,
            "waiting": 0,
            "last_drain": {"boot_id": f"b{boot - 1}", "finished": 2, "cut": 0} if boot > 1 else None,
        }
        connection.sendall(json.dumps(said).encode() + b"\n")


def test_the_whole_sentence(live: Live, run: Any) -> None:
    live.docker.smi = lambda _: Answer(csv(11000 if live.docker.boot == 1 else 9000))
    with sidecar(live.path.with_name("control.sock"), Sidecar(live, 10900.0).answer):
        program = run()
        eventually(lambda: any("ready again" in said for said in program.sentences()))
    assert re.fullmatch(
        r"restarted \d\d:\d\d: 11000, 11000, 11000 MiB > 10752; own 10900; 2 streams finished, 0 cut; "
        r"ready again after \d+ s",
        program.sentences()[1],
    )


def test_memory_of_others_is_told_and_restarts_nobody(live: Live, run: Any) -> None:
    live.docker.smi = lambda _: Answer(csv(12000))
    with sidecar(live.path.with_name("control.sock"), Sidecar(live, 6500.0).answer):
        program = run()
        eventually(lambda: "foreign_vram" in (program.get("/health") or {}).get("alerts", {}))
        looks = live.docker.called("/start")
        eventually(lambda: live.docker.called("/start") >= looks + 4)
    assert live.docker.restarts() == 0
    assert "other processes hold 5500 MiB" in program.get("/health")["alerts"]["foreign_vram"]


def test_the_log_is_json_and_has_the_readings(live: Live, run: Any) -> None:
    live.docker.smi = lambda _: Answer(csv(11000 if live.docker.boot == 1 else 9000))
    program = run()
    eventually(lambda: any("restarted" in said for said in program.sentences()))
    program.process.send_signal(signal.SIGTERM)
    lines = [json.loads(line) for line in program.end()[2].splitlines()]
    (restarted,) = [line for line in lines if line["event"] == "restarted"]
    assert restarted["used_mib"] == [11000, 11000, 11000]
    assert lines[-1]["event"] == "stopped"


def test_dry_run_never_calls(live: Live, run: Any) -> None:
    live.docker.smi = lambda _: Answer(csv(11000))
    program = run("--dry-run")
    eventually(lambda: any(said.startswith("would restart") for said in program.sentences()))
    assert live.docker.restarts() == 0


def test_sigterm_in_the_middle_of_a_restart(live: Live, run: Any) -> None:
    """F59: it leaves within 10 s, and the daemon carries the restart to its end."""
    live.docker.smi = lambda _: Answer(csv(11000))
    live.docker.faults["restart"] = "hang"
    program = run()
    eventually(lambda: live.docker.restarts() == 1)
    assert stop_takes_s(program) < 10.0
    assert live.docker.restarts() == 1


@pytest.mark.parametrize("fault", ["list", "top", "exec", "start", "inspect"])
def test_sigterm_while_the_engine_hangs(live: Live, run: Any, fault: str) -> None:
    program = run()
    eventually(lambda: (program.get("/health") or {}).get("status") == "watching")
    calls = len(live.docker.calls)
    live.docker.faults[fault] = "hang"
    eventually(lambda: len(live.docker.calls) > calls)
    assert stop_takes_s(program) < 10.0


def test_a_hung_nvidia_smi_is_survived(live: Live, run: Any) -> None:
    live.docker.smi = lambda _: Answer(status=None)
    program = run("--probe-timeout", "1s")
    eventually(lambda: (program.get("/health") or {}).get("status") == "blind", 40)
    assert live.docker.called("/start") == 1
    assert live.docker.restarts() == 0
    for exec_id, (argv, _) in list(live.docker.execs.items()):
        live.docker.execs[exec_id] = (argv, Answer(status=0))
    live.docker.smi = lambda _: Answer(csv(9000))
    live.docker.hanging.set()
    eventually(lambda: program.get("/health")["status"] == "watching")


def test_waiting_for_a_container_is_no_failure(live: Live, run: Any) -> None:
    live.docker.containers = []
    program = run()
    eventually(lambda: (program.get("/health") or {}).get("status") == "waiting")
    live.docker.containers = None
    eventually(lambda: program.get("/health")["status"] == "watching")


def test_an_engine_that_goes_away_and_comes_back(live: Live, run: Any) -> None:
    program = run()
    eventually(lambda: (program.get("/health") or {}).get("status") == "watching")
    for fault in (500, "close", "garbage", "cut", 403):
        live.docker.faults["list"] = fault
        eventually(lambda: program.get("/health")["status"] == "no engine")
        live.docker.faults.clear()
        eventually(lambda: program.get("/health")["status"] == "watching")
    assert live.docker.restarts() == 0


@pytest.mark.skipif(driver_is_here(), reason="here is a driver, so there is a card to miss")
def test_nothing_to_watch_is_said_once_and_healthy(live: Live, run: Any) -> None:
    live.docker.smi = lambda _: Answer(b"", 127)
    program = run("--log-format", "plain")
    eventually(lambda: (program.get("/health") or {}).get("status") == "nothing to watch")
    eventually(lambda: live.docker.called("/start") >= 4)
    program.process.send_signal(signal.SIGTERM)
    errors = program.end()[2]
    assert errors.count("nothing to watch: no GPU here") == 1


class TestOnce:
    """A single look, and what a start would fail on, each with a code of its own."""

    @pytest.mark.parametrize("flag", ["--once", "--self-test"])
    def test_all_is_well(self, run: Any, flag: str) -> None:
        code, out, err = run(flag).end()
        assert (code, err) == (0, "")
        assert re.fullmatch(
            r"watching llm-sidecar through exec: GPU-\S+ 9000 of 24576 MiB: under 10752\n", out
        )

    def test_over_is_said(self, live: Live, run: Any) -> None:
        live.docker.smi = lambda _: Answer(csv(11000))
        code, out, _ = run("--once").end()
        assert (code, "over 10752" in out) == (0, True)
        assert live.docker.restarts() == 0

    def test_an_unknown_container(self, run: Any) -> None:
        code, _, err = run("--once", "--service", "other").end()
        assert code == 78
        assert err.startswith("watchdog: WATCHDOG_SERVICE='other' can not be used: no container of service")
        assert err.count("\n") == 1

    def test_two_containers(self, live: Live, run: Any) -> None:
        live.docker.containers = [live.docker.entry(), live.docker.entry()]
        code, _, err = run("--self-test").end()
        assert (code, "2 containers" in err) == (78, True)

    def test_a_container_that_does_not_run(self, live: Live, run: Any) -> None:
        live.docker.state = "exited"
        code, _, err = run("--once").end()
        assert (code, err) == (75, "watchdog: llm-sidecar is exited\n")

    def test_no_reading(self, live: Live, run: Any) -> None:
        live.docker.smi = lambda _: Answer(b"Failed to initialize NVML: Unknown Error\n", 255)
        code, _, err = run("--once").end()
        assert code == 75
        assert err == "watchdog: WATCHDOG_READER=exec: the container lost its GPU (NVML: Unknown Error)\n"

    @pytest.mark.parametrize("flag", ["--once", "--strikes=3"])
    def test_a_limit_above_the_card(self, live: Live, run: Any, flag: str) -> None:
        live.docker.smi = lambda _: Answer(csv(5000, 8192))
        code, _, err = run(flag).end()
        assert code == 78
        assert err.splitlines()[-1] == (
            "watchdog: VRAM_BUDGET=10752MiB can not be used: no card here has more than 8192 MiB; "
            "accepted: less than 8192MiB"
        )
        assert live.docker.restarts() == 0

    @pytest.mark.parametrize("flag", ["--once", "--strikes=3"])
    def test_no_engine(self, live: Live, run: Any, flag: str) -> None:
        code, _, err = run(flag, DOCKER_HOST=f"unix://{live.path}.absent").end()
        assert code == 69
        assert err.startswith(f"watchdog: DOCKER_HOST: Docker at unix://{live.path}.absent: No such file")

    @pytest.mark.parametrize("flag", ["--once", "--strikes=3"])
    def test_a_proxy_that_refuses(self, live: Live, run: Any, flag: str) -> None:
        live.docker.faults["list"] = 403
        assert run(flag).end()[0] == 77

    @pytest.mark.skipif(os.getuid() != 0, reason="another user is needed, which only root can be")
    @pytest.mark.parametrize("flag", ["--once", "--strikes=3"])
    def test_no_permission_for_the_socket(self, live: Live, flag: str) -> None:
        # Everything is imported before, since root's Python may not be readable by others.
        code = "import os, sys; from watchdog import service; from watchdog.__main__ import main; "
        code += "os.setgroups([]); os.setgid(12345); os.setuid(12345); "
        code += "sys.exit(main(sys.argv[1:], os.environ))"
        # A folder of its own, that others may enter; pytest's are its user's alone.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "docker.sock")
            path.parent.chmod(0o755)
            with serving(live.docker, path):
                path.chmod(0o600)
                told = subprocess.run(
                    [sys.executable, "-c", code, flag],
                    cwd=ROOT,
                    env={"DOCKER_HOST": f"unix://{path}", "WATCHDOG_STATUS_PORT": str(_free_port())},
                    capture_output=True,
                    text=True,
                    timeout=60,
                )
        assert told.returncode == 77
        last = told.stderr.splitlines()[-1]
        assert "Permission denied (this process is 12345:12345" in last
        assert "the socket is 0:0 600; add its group: DOCKER_GID=0" in last

    def test_the_port_is_taken(self, run: Any) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            code, _, err = run(WATCHDOG_STATUS_PORT=port).end()
        assert code == 71
        assert f"WATCHDOG_STATUS_PORT: 127.0.0.1:{port} can not be used" in err


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_the_seeds_script_is_a_front(live: Live, run: Any) -> None:
    environ = run().environ | {"PYTHON": sys.executable}
    told = subprocess.run(
        [str(ROOT / "watchdog" / "vram_watchdog.sh"), "--once"],
        cwd="/",
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (told.returncode, told.stderr) == (0, "")
    assert "under 10752" in told.stdout


def test_the_guard_is_not_the_leak(live: Live, run: Any) -> None:
    """Resident memory under 40 MB, and neither files nor threads that grow."""
    program = run()
    eventually(lambda: live.docker.called("/start") >= 3)
    proc = Path(f"/proc/{program.process.pid}")
    files = len(list((proc / "fd").iterdir()))
    for fault in ("close", 500, "cut"):
        live.docker.faults["exec"] = fault
        calls = live.docker.called("/exec")
        eventually(lambda calls=calls: live.docker.called("/exec") > calls)
    live.docker.faults.clear()
    calls = live.docker.called("/start")
    eventually(lambda: live.docker.called("/start") > calls)
    status = (proc / "status").read_text()
    resident_kib = int(re.search(r"VmRSS:\s+(\d+)", status)[1])
    print(f"resident: {resident_kib / 1024:.1f} MB")
    assert resident_kib < 40 * 1024
    assert len(list((proc / "fd").iterdir())) <= files + 3
    assert int(re.search(r"Threads:\s+(\d+)", status)[1]) <= 5


def test_frozen_and_woken_it_neither_bunches_nor_strikes(live: Live, run: Any) -> None:
    """F58: after a pause the old streak has expired."""
    live.docker.smi = lambda _: Answer(csv(11000))
    program = run()
    eventually(lambda: live.docker.called("/start") >= 2)
    program.process.send_signal(signal.SIGSTOP)
    time.sleep(7)  # more than five intervals: what is tested is that time passes
    looks = live.docker.called("/start")
    program.process.send_signal(signal.SIGCONT)
    eventually(lambda: live.docker.called("/start") >= looks + 2)
    assert live.docker.restarts() == 0
