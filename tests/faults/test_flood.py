"""More requests at once than anybody can serve, and fewer descriptors than there are clients."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import uvloop

from sidecar.descriptors import allow_many
from sidecar.quantiles import quantile
from tests.e2e.program import Program, until
from tests.faults.clients import Ask, Outcome, asked
from tests.faults.conftest import Serving
from tests.faults.probing import probing

QUEUE = 32


@pytest.fixture
def many_descriptors() -> Iterator[int]:
    """The tests' own clients need them too."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield allow_many()
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
@pytest.mark.timeout(240)
def test_one_runs_32_wait_and_all_others_are_told_to_come_back(
    serving: Serving, many_descriptors: int, count: int
) -> None:
    if many_descriptors < count + 500:
        pytest.skip(f"{many_descriptors} descriptors are allowed here (ulimit -Hn)")
    with serving("--queue_timeout", "300", FAULTS_SCRIPT="slots=1", MAX_QUEUE=str(QUEUE)) as own:
        process = psutil.Process(own.process.pid)
        base = process.num_fds()
        with probing(own.port) as probes:
            outcomes = uvloop.run(_flood(own, count))
        until(lambda: own.active() == own.waiting() == 0, "all places free", 10)
        kinds, codes = Counter(o.kind for o in outcomes), Counter(o.code for o in outcomes if o.code)
        assert kinds == {"left": 1, "complete": QUEUE, "error": count - QUEUE - 1}
        assert codes == {"queue_full": count - QUEUE - 1}
        refused = [o for o in outcomes if o.kind == "error"]
        assert {o.status for o in refused} == {429}
        assert all(1 <= int(o.headers["retry-after"]) <= 60 for o in refused)
        print(
            f"{count} at once: 429 after {quantile([o.seconds for o in refused], 0.5):.2f} s in the median;"
        )
        print(f"{len(probes)} probes, p99 {quantile(probes, 0.99):.0f} ms, worst {max(probes):.0f} ms")
        assert max(probes) < 30_000
        until(lambda: process.num_fds() <= base, "all descriptors given back", 10)
        assert "Traceback" not in own.printed()


async def _flood(own: Program, count: int) -> list[Outcome]:
    """One that runs until its client leaves, and behind it all others at the same moment."""
    body = {"prompt": "word " * 100_000, "timeout": 300}
    first = asyncio.create_task(asked(own.port, Ask("first", "/generate", body, leave_s=300)))
    await asyncio.to_thread(until, lambda: own.active() == 1, "the first one runs")
    others = [
        asyncio.create_task(asked(own.port, Ask(f"r{index}", "/generate", {"prompt": "hi", "timeout": 300})))
        for index in range(1, count)
    ]
    left = count - 1
    while left > QUEUE:  # all but those who wait are answered while the first one still runs
        done, _ = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        others = [task for task in others if task not in done] + [task for task in others if task in done]
        left = sum(not task.done() for task in others)
        await asyncio.sleep(0.05)
    first.cancel()
    outcomes = await asyncio.gather(*others)
    return [Outcome("first", "left"), *outcomes]


def test_without_descriptors_it_neither_dies_nor_spins(tmp_path: Path) -> None:
    """`ulimit -n 256`, hard: whoever comes when none is left is turned away by the system."""
    with _limited(tmp_path, 256) as own, contextlib.ExitStack() as clients:
        process = psutil.Process(own.process.pid)
        for _ in range(400):
            clients.enter_context(socket.create_connection(("127.0.0.1", own.port), 5))
        until(lambda: process.num_fds() >= 256, "no descriptor left", 10)
        spent = sum(process.cpu_times()[:2])
        time.sleep(1.0)  # what is looked at is how busy it is meanwhile
        assert sum(process.cpu_times()[:2]) - spent < 0.5
        clients.close()
        until(own.ready, "it serves again", 20)
        status, body = own.post("/generate", prompt="still here")
        assert (status, body["generated_text"]) == (200, "still here ")
        assert "Traceback" not in own.printed()


def test_the_systems_cautious_default_is_not_the_end(tmp_path: Path) -> None:
    with _limited(tmp_path, "-S 64") as own, contextlib.ExitStack() as clients:
        for _ in range(200):
            clients.enter_context(socket.create_connection(("127.0.0.1", own.port), 5))
        assert own.ready()


@contextlib.contextmanager
def _limited(folder: Path, limit: int | str) -> Iterator[Program]:
    from tests.e2e.program import CLEAN, ROOT, free_port

    port, output = free_port(), folder / "output.txt"
    command = f"ulimit -n {limit}; exec {sys.executable} -m tests.faults.served --port {port}"
    with output.open("w") as sink:
        process = subprocess.Popen(
            ["/bin/bash", "-c", command], cwd=ROOT, env={**CLEAN}, stdout=sink, stderr=sink, text=True
        )
    own = Program(process, port, output)
    try:
        until(own.announced, "ready", 20)
        yield own
    finally:
        process.terminate()
        process.wait(20)
