"""A start, a crash, another life, an end: the same whichever engine it is."""

from __future__ import annotations

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.contract.asking import CAPITAL, LONG, PARIS, Door, Refused
from tests.e2e.program import Program, program, serving, until

PHASES = ("start", "download", "load", "warmup")


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_health_in_the_words_of_both_seeds(server: Program) -> None:
    status, body = server.get("/health")
    assert status == 200
    assert (body["status"], body["model_loaded"], body["device"]) == ("ok", True, "cpu")
    assert re.fullmatch(r"\d+\.\d\d", body["memory_allocated_gb"])


def test_phases_then_a_drain_that_finishes_what_runs(profile: str, tmp_path: Path) -> None:
    with program(tmp_path, **serving(profile)) as own:
        door = Door(own)
        until(lambda: own.get("/livez")[0] == 200, "alive")
        status, body = own.get("/startupz")
        assert (status, body["phase"] in PHASES) == (503, True)
        assert own.get("/health")[1]["model_loaded"] is False
        assert own.post("/generate", prompt="x")[0] == 503
        until(own.ready, "ready", 100)
        assert own.get("/startupz")[0] == 200
        engine = own.child()
        stream = door.events(**{**LONG, "max_tokens": 60})
        first = next(stream)
        own.process.send_signal(signal.SIGTERM)
        until(lambda: own.get("/readyz")[0] == 503, "not ready any more")
        assert own.post("/generate", prompt="x")[1]["error"]["code"] == "draining"
        events = [first, *stream]
        assert events[-1] is None
        assert events[-2]["usage"]["completion_tokens"] == 60
        assert own.process.wait(20) == 0
        until(lambda: gone(engine), "the engine is gone", 5)
        assert "Traceback" not in own.printed()


@pytest.mark.timeout(300)  # two loads of a model, on whatever machine
def test_a_killed_engine_costs_what_it_worked_on_and_nobody_else(profile: str, tmp_path: Path) -> None:
    """16 run and get a typed error; 4 wait and are answered by the next life; then all is as before."""
    with program(tmp_path, **serving(profile)) as own, ThreadPoolExecutor(24) as pool:
        door = Door(own)
        until(own.announced, "ready, and its own first question answered", 100)
        dead = own.child()
        running = [door.events(**LONG, timeout=200) for _ in range(16)]
        assert all("error" not in event for event in pool.map(next, running) if event)
        waiting = [
            pool.submit(door.greedy, streamed, prompt=CAPITAL, timeout=150) for streamed in (True, False) * 2
        ]
        until(lambda: own.waiting() == 4, "four wait")
        os.kill(dead.pid, signal.SIGKILL)
        for last in [events[-1] for events in pool.map(list, running)]:
            assert last is not None, "[DONE] behind an answer that was cut"
            assert last["error"]["code"] == "engine_crashed"
        assert [future.result(150).text for future in waiting] == [f" {PARIS}"] * 4
        assert own.child().pid != dead.pid
        assert own.ready()
        assert door.greedy(prompt=CAPITAL).text == f" {PARIS}"
        assert "Traceback" not in own.printed()
        os.kill(own.child().pid, signal.SIGKILL)
        until(lambda: not own.ready(), "noticed", 5)
        status, body = own.get("/health")
        assert (status, body["status"], body["model_loaded"], body["phase"]) == (
            503,
            "error",
            False,
            "restart",
        )
        assert own.get("/livez")[0] == 200
        try:
            door.ask(prompt=CAPITAL)
        except Refused as refused:
            assert (refused.status, refused.error["code"]) == (503, "model_not_ready")


def test_ctrl_c_while_loading(profile: str, tmp_path: Path) -> None:
    with program(tmp_path, **serving(profile)) as own:
        until(lambda: bool(own.children()), "an engine")
        engine = own.child()
        own.process.send_signal(signal.SIGINT)
        assert own.process.wait(15) == 0
        until(lambda: gone(engine), "the engine is gone", 5)
        assert "Traceback" not in own.printed()


def test_a_killed_server_takes_its_engine_along(profile: str, tmp_path: Path) -> None:
    with program(tmp_path, **serving(profile)) as own:
        until(lambda: bool(own.children()), "an engine")
        engine = own.child()
        own.process.kill()
        own.process.wait()
        until(lambda: gone(engine), "the engine is gone", 10)
