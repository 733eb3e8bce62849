"""Two sidecars behind one door: what the second brings, what the door costs, what 20 kills are to clients.

The engines are scripted, with a fixed pace: what is measured is the door. Its program is the one of `make
install-litellm`.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from tests.faults.clients import Outcome, asked
from tests.stack.door import Door, answered, door, errors, running
from tools.bench import machine
from tools.bench.figures import rounded
from tools.bench.show import Show, progress

# About what an 8B does on a card of the P106's kind; and as fast as words can come.
PACE_MS, FASTEST_MS, WORDS = 80, 0, 32
KILLED_PACE_MS = 20
# As many as both servers have places.
CLIENTS = 8
ROUNDS, FIRSTS, KILLS = 2, 100, 20
SAID = " ".join(f"word{number}" for number in range(WORDS))


def measure(quick: bool) -> dict[str, Any]:
    """All of it; quick: little of each."""
    others = machine.Others()
    rounds, firsts, kills = (1, 10, 2) if quick else (ROUNDS, FIRSTS, KILLS)
    with progress(3 + rounds * 2 + kills) as show, tempfile.TemporaryDirectory() as folder:
        found = _measured(Path(folder), rounds, firsts, kills, show)
    return {"machine": machine.facts() | {"busy_by_others_cores": rounded(others.cores())}, **found}


def _measured(folder: Path, rounds: int, firsts: int, kills: int, show: Show) -> dict[str, Any]:
    (folder / "one").mkdir()
    with running(folder, "gpu-server-1", "gpu-server-2") as servers:
        show("one server behind a door, two behind another: start")
        with door(folder / "one", servers[:1]) as one, door(folder, servers) as two:
            throughput = _throughput(one, two, rounds, show)
            show(f"{firsts} first tokens, with and without the door")
            added = uvloop.run(_added_ms(two, firsts))
        show("a door for the kills")
        with door(folder, servers) as two:
            return {"throughput": throughput, "first": added, "kills": uvloop.run(_kills(two, kills, show))}


def _throughput(one: Door, two: Door, rounds: int, show: Show) -> dict[str, Any]:
    """Words per second, in turn: the same clients at either door."""
    found: dict[str, list[float]] = {"one": [], "two": []}
    for number in range(rounds):
        for name, through in (("one", one), ("two", two)):
            show(f"{CLIENTS} clients, {name} server(s), round {number + 1}")
            found[name].append(uvloop.run(_words_per_s(through, PACE_MS)))
    ratios = [b / a for a, b in zip(found["one"], found["two"], strict=True)]
    figures = {f"{name}_words_per_s": statistics.median(rates) for name, rates in found.items()}
    figures["ratio"] = statistics.median(ratios)
    figures["most_words_per_s"] = uvloop.run(_words_per_s(two, FASTEST_MS))
    fixed = {"pace_ms": PACE_MS, "clients": CLIENTS, "engines_words_per_s": CLIENTS * 1000 / PACE_MS}
    return {name: rounded(value) for name, value in figures.items()} | fixed


async def _words_per_s(through: Door, pace_ms: int) -> float:
    # Of different lengths: clients that all end together would ask together again, and none do that.
    draw = random.Random(3)
    lengths = [draw.randint(WORDS // 2, WORDS * 3 // 2) for _ in range(4 * CLIENTS)]
    asks = [through.ask(" ".join(["word"] * count), stream=True, pace_ms=pace_ms) for count in lengths]
    began, waiting = time.monotonic(), iter(asks)

    async def client() -> None:
        for ask in waiting:
            _whole(await through.asked(ask))

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return sum(lengths) / (time.monotonic() - began)


def _whole(outcome: Outcome) -> Outcome:
    if outcome.kind != "complete":
        raise RuntimeError(f"a request at the door was not answered: {outcome}")
    return outcome


async def _added_ms(through: Door, count: int) -> dict[str, float]:
    """Milliseconds from the request to the end of a stream of one word, in turn at both."""
    direct: list[float] = []
    behind: list[float] = []
    for _ in range(count):
        for port, found in ((through.servers[0].port, direct), (through.port, behind)):
            ask = through.ask("word", stream=True, pace_ms=0)
            found.append(_whole(await asked(port, ask)).seconds * 1000)
    medians = {"direct_ms": statistics.median(direct), "door_ms": statistics.median(behind)}
    medians["added_ms"] = medians["door_ms"] - medians["direct_ms"]
    p95 = statistics.quantiles(behind, n=20)[-1] - statistics.quantiles(direct, n=20)[-1]
    return {name: rounded(value) for name, value in (medians | {"added_p95_ms": p95}).items()}


async def _kills(through: Door, count: int, show: Show) -> dict[str, Any]:
    """Each server killed in turn, at a moment drawn by lot, and started again once the other has answered."""
    draw = random.Random(7)
    async with through.load(CLIENTS, SAID, KILLED_PACE_MS) as outcomes:
        for number in range(count):
            show(f"kill {number + 1} of {count}")
            victim = through.servers[number % 2]
            await answered(outcomes, draw.randint(10, 30))
            victim.kill()
            await answered(outcomes, 20)
            await asyncio.to_thread(victim.start)
            await answered(outcomes, 3, victim.name)
    failed = errors(outcomes)
    begun = [outcome for outcome in failed if outcome.texts]
    return {
        "kills": count,
        "requests": len(outcomes),
        "not_begun_errors": len(failed) - len(begun),
        "begun_errors": len(begun),
        "merely_stopped": sum(outcome.kind == "lost" for outcome in failed),
    }
