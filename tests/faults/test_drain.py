"""SIGTERM with much under way: what fits is finished, the rest ends with an error, nothing just stops."""

from __future__ import annotations

import asyncio
import signal
import time

import psutil
import uvloop

from tests.e2e.program import Program, until
from tests.faults.clients import Ask, Outcome, asked
from tests.faults.conftest import Serving
from tests.faults.ledger import counted, scraped

SHORT, ENDLESS, LATE = 40, 6, 20


def test_nothing_is_lost_or_cut_short(serving: Serving) -> None:
    with serving("--drain_seconds", "8", FAULTS_SCRIPT="slots=64") as own:
        engine = own.child()
        outcomes = uvloop.run(_drained(own))
        assert own.process.wait(20) == 0
        kinds = {name: [(o.kind, o.code) for o in found] for name, found in outcomes.items()}
        assert set(kinds["short"]) == {("complete", "")}
        assert set(kinds["endless"]) == {("error", "draining")}
        assert set(kinds["late"]) == {("error", "draining")}
        assert all(o.status == 503 and "retry-after" in o.headers for o in outcomes["late"])
        assert not psutil.pid_exists(engine.pid)
        assert "Traceback" not in own.printed()


async def _drained(own: Program) -> dict[str, list[Outcome]]:
    endless = [_task(own, f"endless{i}", "some words " * 10_000, i % 2 == 0) for i in range(ENDLESS)]
    short = [_task(own, f"short{i}", "some words " * 100, i % 2 == 0) for i in range(SHORT)]
    await asyncio.to_thread(until, lambda: _begun(own) == SHORT + ENDLESS, "all have begun", 20)
    began = time.monotonic()
    own.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(until, lambda: own.get("/readyz")[0] == 503, "not ready any more", 5)
    print(f"not ready after {time.monotonic() - began:.3f} s")
    late = [_task(own, f"late{i}", "hi", i % 2 == 0) for i in range(LATE)]
    every = {"short": short, "endless": endless, "late": late}
    return {name: list(await asyncio.gather(*tasks)) for name, tasks in every.items()}


def _begun(own: Program) -> float:
    """Those that run, and those that are finished already; the start's own question is none of them."""
    return own.active() + counted(scraped(own.port)).get("success", 0) - 1


def _task(own: Program, id: str, prompt: str, streamed: bool) -> asyncio.Task[Outcome]:
    body = {"prompt": prompt, "stream": streamed}
    return asyncio.create_task(asked(own.port, Ask(id, "/v1/completions", body)))
