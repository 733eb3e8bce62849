"""What faults cost: 10,000 requests while the engine is killed, and how long each of 200 kills is felt."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from sidecar.quantiles import quantile
from tests.e2e.program import Program, program, until
from tests.faults import ledger
from tests.faults.clients import Ask, Outcome, asked
from tools.bench import machine, overhead
from tools.bench.figures import rounded
from tools.bench.show import Show, progress

REQUESTS, LEDGER_KILLS = 10_000, 4
# More deaths in ten minutes are taken for a fault that no restart mends, so each few have a fresh server.
KILLS_EACH = 4
SERVERS = {"embedded-gguf": 50, "embedded": 3}
NAMES = {"embedded-gguf": "llama-server", "embedded": "the transformers engine"}
CLIENTS = 4
ANSWERS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Germany": "Berlin",
}  # fmt: skip


def measure(binary: str, quick: bool) -> dict[str, Any]:
    """All of it; quick: little of each."""
    others = machine.Others()
    servers = dict.fromkeys(SERVERS, 1) if quick else SERVERS
    with progress(1 + sum(servers.values())) as show:
        show(f"{REQUESTS} requests, the engine killed {LEDGER_KILLS} times")
        kept = _ledger(binary, REQUESTS // 20 if quick else REQUESTS)
        recovery = {profile: _recoveries(profile, binary, count, show) for profile, count in servers.items()}
    return {
        "machine": machine.facts() | {"busy_by_others_cores": rounded(others.cores())},
        "build": overhead.version(binary),
        "ledger": kept,
        "recovery": recovery,
    }


def question(_: str, draw: random.Random) -> str:
    """One of some questions whose answers the embedded model knows."""
    return f"What is the capital of {draw.choice(sorted(ANSWERS))}?"


def is_right(ask: Ask, outcome: Outcome) -> bool:
    """Whether each choice names the capital that was asked for; other texts have no wrong answer."""
    found = re.fullmatch(r"What is the capital of (\w+)\?", ledger.text_of(ask))
    return found is None or all(ANSWERS[found[1]] in text for text in outcome.texts)


def _ledger(binary: str, count: int) -> dict[str, Any]:
    wanted = ledger.asks(count, question, timeout_s=0.05)
    with _server("embedded-gguf", binary) as own:
        began = time.monotonic()
        outcomes = ledger.run(own.port, wanted, lambda: _kill(own), LEDGER_KILLS, pause_s=0.5)
        seconds = time.monotonic() - began
        until(lambda: own.active() == own.waiting() == 0, "all places free", 20)
        books = ledger.books(wanted, outcomes, own.printed(), ledger.scraped(own.port))
    if wrong := books.wrong(is_right):
        raise RuntimeError(f"{len(wrong)} entries of the ledger are wrong, the first: {wrong[0]}")
    return {
        "requests": count,
        "kills": LEDGER_KILLS,
        "seconds": rounded(seconds),
        "kinds": dict(sorted(books.kinds.items())) | {"lost": books.kinds["lost"]},
        "codes": dict(sorted(books.codes.items())),
    }


def _recoveries(profile: str, binary: str, servers: int, show: Show) -> dict[str, Any]:
    """Seconds from each kill to the first right answer, the wait before the restart included."""
    draw = random.Random(ledger.SEED)
    found = []
    for index in range(servers):
        show(f"{KILLS_EACH} kills of {NAMES[profile]}, server {index + 1} of {servers}")
        with _server(profile, binary) as own:
            found.append(uvloop.run(_killed(own, draw)))
    every = [seconds for row in found for seconds in row]
    return {
        "kills": len(every),
        "median_s": rounded(statistics.median(every)),
        "p95_s": rounded(quantile(every, 0.95)),
        "worst_s": rounded(max(every)),
        "median_s_by_death": [rounded(statistics.median(column)) for column in zip(*found, strict=True)],
        "raw_s": [[rounded(seconds) for seconds in row] for row in found],
    }


async def _killed(own: Program, draw: random.Random) -> list[float]:
    over, found = asyncio.Event(), []

    async def client(name: str) -> None:
        for index in _numbers():
            if over.is_set():
                return
            outcome = await asked(own.port, _ask(f"{name}-{index}", streamed=index % 2 == 0))
            if outcome.kind == "lost":
                raise RuntimeError(f"{outcome.id} was lost: {outcome.code}")
            await asyncio.sleep(0.1 if outcome.kind == "error" else 0)

    async with asyncio.TaskGroup() as group:
        for index in range(CLIENTS):
            group.create_task(client(f"c{index}"))
        for kill in range(KILLS_EACH):
            await asyncio.sleep(draw.uniform(0.1, 1.0))  # the random moment
            began = time.monotonic()
            _kill(own)
            while not _is_paris(await asked(own.port, _ask(f"k{kill}", streamed=True))):
                await asyncio.sleep(0.01)
            found.append(time.monotonic() - began)
        over.set()
    return found


def _is_paris(outcome: Outcome) -> bool:
    return outcome.kind == "complete" and "Paris" in outcome.texts[0]


def _ask(id: str, *, streamed: bool) -> Ask:
    body = {"prompt": "What is the capital of France?", "temperature": 0, "stream": streamed}
    return Ask(id, "/v1/completions", body)


def _numbers() -> Iterator[int]:
    index = 0
    while True:
        yield index
        index += 1


def _kill(own: Program) -> None:
    for child in own.children():
        os.kill(child.pid, signal.SIGKILL)


@contextmanager
def _server(profile: str, binary: str) -> Iterator[Program]:
    """`server.py` as it is, with its own waits between an engine's lives."""
    environ = {"LLM_PROFILE_NAME": profile, "THREADS": "1", "LLAMA_SERVER_PATH": binary, "LOG_FORMAT": "json"}
    with tempfile.TemporaryDirectory() as folder, program(Path(folder), **environ) as own:
        until(lambda: '"message": "ready"' in own.printed(), "ready", 100)
        yield own
