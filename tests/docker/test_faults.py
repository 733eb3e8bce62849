"""What happens to containers: killed, starved, frozen, and an engine that is restarted under them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.docker.stack import SIDECAR, Stack, docker, until

# Many middling processes, so that the largest one in the container is the worker; behind it the kernel takes
# one of them, not the server, which is as small as they are when they begin.
HOGS = (
    "import os\n"
    "open('/proc/self/oom_score_adj', 'w').write('100')\n"
    "for _ in range(40):\n"
    "    if os.fork() == 0:\n"
    "        kept = bytearray(os.urandom(1 << 20)) * 150\n"
    "        import time; time.sleep(4)\n"
    "        os._exit(0)\n"
)


def process(pattern: str) -> int:
    """The host's id of the container's process whose command holds `pattern`."""
    lines = docker("top", SIDECAR, "-eo", "pid,args").splitlines()[1:]
    return next(int(line.split()[0]) for line in lines if pattern in line)


def test_a_killed_server_is_started_again(calm: Stack) -> None:
    before = calm.started_at()
    os.kill(process("python3 -m sidecar serve"), signal.SIGKILL)
    until(lambda: calm.started_at() != before, "started by the restart policy")
    until(calm.ready, "ready again")


def test_a_killed_worker_is_not_a_restart_of_the_container(calm: Stack) -> None:
    before, worker = calm.started_at(), process("sidecar.worker")
    os.kill(worker, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{worker}").exists() and calm.ready(), "a new worker")
    assert calm.started_at() == before
    assert "Paris" in calm.ask()[1]["generated_text"]


def test_memory_that_runs_out_costs_the_worker_and_is_mended(calm: Stack) -> None:
    before, worker = calm.started_at(), process("sidecar.worker")
    docker("update", "--memory", "3g", "--memory-swap", "3g", SIDECAR)
    subprocess.run(["docker", "exec", SIDECAR, "python3", "-c", HOGS], capture_output=True, timeout=120)
    until(lambda: not Path(f"/proc/{worker}").exists(), "the worker was the largest")
    until(calm.ready, "ready again")
    assert "Paris" in calm.ask()[1]["generated_text"]
    assert calm.started_at() == before, "the container was restarted for a worker's death"


def test_a_paused_container_is_left_alone_and_goes_on(calm: Stack) -> None:
    acts = calm.acts()
    docker("pause", SIDECAR)
    try:
        until(lambda: any("is paused" in line["message"] for line in calm.watchdog_said()), "it was seen")
        time.sleep(4)  # as many intervals: what must not happen needs time not to happen in
    finally:
        docker("unpause", SIDECAR)
    until(calm.ready, "ready again")
    assert calm.acts() == acts


def test_an_engine_restart_brings_both_back(calm: Stack) -> None:
    _restart_engine()
    until(lambda: docker("info", check=False) != "", "the engine answers")
    until(calm.ready, "ready again")
    calm.readings("6000")
    until(lambda: calm.looks() >= 3, "the watchdog looks again")


def _restart_engine() -> None:
    if Path("/run/systemd/system").exists():
        subprocess.run(["systemctl", "restart", "docker"], check=True, timeout=120)
        return
    pid = int(Path("/var/run/docker.pid").read_text())
    command = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    os.kill(pid, signal.SIGTERM)
    until(lambda: not Path(f"/proc/{pid}").exists() or _zombie(pid), "the engine has ended")
    with open("/tmp/dockerd-again.log", "ab") as log:
        subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)


def _zombie(pid: int) -> bool:
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()
