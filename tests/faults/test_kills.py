"""The engine's process is killed or stands still: a typed error, another life, right answers."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import uvloop

from tests.e2e.program import Program, until
from tests.faults.clients import Ask, Outcome, asked
from tests.faults.conftest import echoing

KILLS = 10
CLIENTS = 8
SEED = 5
MAY_HAPPEN = {"engine_crashed", "model_not_ready"}
REAL = {"FAULTS_ENGINE": "llama", "LLAMA_SERVER_PATH": os.environ.get("LLAMA_SERVER_PATH", "")}
ENGINES = [
    pytest.param({"FAULTS_SCRIPT": "slots=4"}, "one two three", id="worker"),
    pytest.param(REAL, "What is the capital of France?", id="llama", marks=pytest.mark.llama),
]
RIGHT = {
    "one two three": "one two three ",
    "What is the capital of France?": " The capital of France is Paris.",
}


def is_right(prompt: str, outcome: Outcome) -> bool:
    return outcome.kind == "complete" and outcome.texts == (RIGHT[prompt],)


@pytest.mark.parametrize(("environ", "prompt"), ENGINES)
def test_killed_at_any_moment_it_comes_back(tmp_path: Path, environ: dict[str, str], prompt: str) -> None:
    with echoing(tmp_path, **environ) as own:
        pids, outcomes, recoveries = uvloop.run(_killed_under_load(own, prompt))
        print(f"recovered after {sorted(recoveries)} s; {Counter(o.code or o.kind for o in outcomes)}")
        assert len(set(pids)) == KILLS
        assert {o.kind for o in outcomes} <= {"complete", "error"}
        assert {o.code for o in outcomes if o.kind == "error"} <= MAY_HAPPEN
        assert all(is_right(prompt, o) for o in outcomes if o.kind == "complete")
        assert max(recoveries) < 10
        until(lambda: own.active() == own.waiting() == 0, "all places free", 5)
        assert not [pid for pid in pids if psutil.pid_exists(pid)]
        assert len(own.children()) == 1
        assert "Traceback" not in own.printed()


async def _killed_under_load(own: Program, prompt: str) -> tuple[list[int], list[Outcome], list[float]]:
    draw, loop = random.Random(SEED), asyncio.get_running_loop()
    outcomes: list[Outcome] = []
    over = asyncio.Event()

    async def client(name: str) -> None:
        for ask in _asks(name, prompt):
            if over.is_set():
                return
            outcomes.append(await asked(own.port, ask))
            if outcomes[-1].kind == "error":
                await asyncio.sleep(0.02)  # a client that comes back at once only makes work

    async with asyncio.TaskGroup() as group:
        for index in range(CLIENTS):
            group.create_task(client(f"c{index}"))
        pids, recoveries = [], []
        for kill in range(KILLS):
            await asyncio.sleep(draw.uniform(0.0, 0.2))  # the random moment
            pids.append(own.child().pid)
            os.kill(pids[-1], signal.SIGKILL)
            began = loop.time()
            while not is_right(prompt, await asked(own.port, _ask(f"k{kill}", prompt, kill % 2 == 0))):
                await asyncio.sleep(0.02)
            recoveries.append(round(loop.time() - began, 2))
            await asyncio.to_thread(until, lambda: len(own.children()) == 1, "one engine", 5)
        over.set()
    return pids, outcomes, recoveries


def _asks(name: str, prompt: str) -> Iterator[Ask]:
    index = 0
    while True:
        yield _ask(f"{name}-{index}", prompt, index % 2 == 0)
        index += 1


def _ask(id: str, prompt: str, streamed: bool) -> Ask:
    return Ask(id, "/v1/completions", {"prompt": prompt, "stream": streamed, "temperature": 0})


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("environ", "prompt"), ENGINES)
def test_one_that_stands_still_in_mid_answer_is_replaced(
    tmp_path: Path, environ: dict[str, str], prompt: str, streamed: bool
) -> None:
    """SIGSTOP: alive for the system, dead for everybody who waits."""
    # Long enough to be stopped in the middle, whichever engine it is.
    body = {"prompt": "word " * 5000, "stream": streamed}
    if environ is REAL:
        endless = {"logit_bias": {"0": -100, "2": -100}, "max_tokens": 900}
        body = {"prompt": "Tell me a story.", "stream": streamed, **endless}
    with echoing(tmp_path, FAULTS_STALL_S="1", **environ) as own:
        stopped = own.child().pid

        async def stop() -> Outcome:
            waiting = asyncio.create_task(asked(own.port, Ask("stalled", "/v1/completions", body)))
            await asyncio.to_thread(until, lambda: own.active() == 1, "it runs", 10)
            os.kill(stopped, signal.SIGSTOP)
            return await waiting

        outcome = uvloop.run(stop())
        assert (outcome.kind, outcome.code) == ("error", "engine_stalled")
        assert outcome.status == (200 if outcome.texts else 503)
        until(own.ready, "another life", 20)
        assert own.child().pid != stopped
        assert not psutil.pid_exists(stopped)
        assert is_right(prompt, asyncio.run(asked(own.port, _ask("after", prompt, streamed))))


@pytest.mark.parametrize(("environ", "prompt"), ENGINES)
def test_killed_while_nobody_asks(tmp_path: Path, environ: dict[str, str], prompt: str) -> None:
    """/health says so within the second, and whoever asks meanwhile is told when to come back."""
    with echoing(tmp_path, FAULTS_DELAY_S="1", **environ) as own:
        os.kill(own.child().pid, signal.SIGKILL)
        assert until(lambda: own.get("/health")[0] == 503, "noticed", 5) < 1.0
        refused = asyncio.run(asked(own.port, _ask("meanwhile", prompt, True)))
        assert (refused.status, refused.code) == (503, "model_not_ready")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert own.get("/livez")[0] == 200
        until(own.ready, "another life", 20)
        assert is_right(prompt, asyncio.run(asked(own.port, _ask("after", prompt, False))))
