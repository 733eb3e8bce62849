"""Ten minutes of the worst load on each engine, and what reserving memory costs of the worker's speed.

`held` is a worker whose memory is sized as profiles size it: more slots than contexts, and who finds a slot
waits until what it may need is reserved. Nothing is to be reserved where each slot has a context of its own:
`free` has the same slots and the memory for all of them, which is twice as much; `even` has the same memory
and as many slots as that allows. The same mix, in turn, asked by the same number of clients or by as many as
each can take. llama-server has no such pairs: a slot there is its memory.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

from tools.bench import machine, overhead
from tools.bench.figures import rounded
from tools.bench.servers import ROOT
from tools.bench.show import Show, progress

MINUTES, QUICK_MINUTES = 10.0, 0.2
PAIRS, PAIR_MINUTES = 5, 0.5
CONTEXT = 256
# About a tenth above what the engine was seen to take: a budget that is never close tells nothing.
BUDGETS = {"embedded-gguf": "64MiB", "embedded": "3GiB"}
WANTED_SPEED, WANTED_SHARE, WANTED_HEALTH_MS = 0.95, 0.8, 50.0


@dataclass(frozen=True, slots=True)
class Pool:
    """An engine's room: requests at once, and tokens of all of them; None is a context for each."""

    slots: int
    kv_tokens: int | None = None


# As in the profile `embedded`: half as many contexts as slots. llama-server sets one aside for each slot.
HELD = {"embedded": Pool(32, 16 * CONTEXT), "embedded-gguf": Pool(16)}


@dataclass(frozen=True, slots=True)
class Against:
    """What `held` is compared with, and its name in the table.

    `clients` ask each of the two at once; None: as many as keep a queue.
    """

    what: str
    pool: Pool
    clients: int | None = None


# A request of the mix has 203 tokens in the mean, and those that are longer stay longer: 16 clients have
# nearly all of `held` reserved and seldom wait; 20 do.
AGAINST = {
    "free_16": Against("`free`, 16 clients each", Pool(32), 16),
    "free_20": Against("`free`, 20 clients each", Pool(32), 20),
    "even": Against("`even`, as many clients as each can take", Pool(16)),
    "free": Against("`free`, as many clients as each can take", Pool(32)),
}


def measure(binary: str, quick: bool) -> dict[str, Any]:
    """All of it; quick: little of each."""
    others = machine.Others()
    pairs = 1 if quick else PAIRS
    with progress(len(BUDGETS) + pairs * len(AGAINST)) as show:
        runs = {profile: _ten_minutes(profile, binary, quick, show) for profile in BUDGETS}
        speed = {name: _pairs(name, binary, pairs, quick, show) for name in AGAINST}
    return {
        "machine": machine.facts() | {"busy_by_others_cores": rounded(others.cores())},
        "build": overhead.version(binary),
        "context": CONTEXT,
        "runs": runs,
        "speed": speed,
    }


def _ten_minutes(profile: str, binary: str, quick: bool, show: Show) -> dict[str, Any]:
    minutes = QUICK_MINUTES if quick else MINUTES
    show(f"the worst load on {profile}, {minutes:g} minutes")
    return _soak(profile, HELD[profile], binary, minutes, "--memory_budget", BUDGETS[profile])


def _pairs(against: str, binary: str, pairs: int, quick: bool, show: Show) -> dict[str, Any]:
    """Tokens a second of `held` and of another pool in turn, and the median of the ratios."""
    other = AGAINST[against]
    pools = {"held": HELD["embedded"], against: other.pool}
    clients = () if other.clients is None else ("--clients", str(other.clients))
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in pools}
    minutes = QUICK_MINUTES if quick else PAIR_MINUTES
    for index in range(pairs):
        show(f"memory reserved against {against}, pair {index + 1} of {pairs}")
        for name, pool in pools.items():
            found[name].append(_soak("embedded", pool, binary, minutes, *clients))
    speeds = {name: [run["tokens_per_s"] for run in runs] for name, runs in found.items()}
    ratios = [held / beside for held, beside in zip(speeds["held"], speeds[against], strict=True)]
    shares = [run["kv_reserved_share"] for run in found["held"] if run["kv_reserved_share"] is not None]
    return {
        "raw": speeds,
        "running": {
            name: rounded(statistics.mean(run["running_mean"] for run in runs))
            for name, runs in found.items()
        },
        "clients": other.clients,
        "kv_reserved_share": rounded(statistics.mean(shares)) if shares else None,
        "ratio": rounded(statistics.median(ratios)),
        "ratio_range": [rounded(min(ratios)), rounded(max(ratios))],
        "failed_for_memory": sum(run["failed_for_memory"] for runs in found.values() for run in runs),
    }


def _soak(profile: str, pool: Pool, binary: str, minutes: float, *flags: str) -> dict[str, Any]:
    """The report. RuntimeError where there is none."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as registry:
        registry.write(_registry(profile, pool))
        registry.flush()
        command = [
            sys.executable, "-m", "sidecar", "soak", "--minutes", str(minutes), "--json", "--profile", "soak",
            "--profiles_config", registry.name, "--llama_server", binary, *flags,
        ]  # fmt: skip
        environ = {"THREADS": "1", **os.environ}
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(f"the soak ended with {done.returncode}: {done.stderr}") from None
    return report


def _registry(profile: str, pool: Pool) -> str:
    """A file with one profile, `soak`: the embedded model on that engine, with that room."""
    kv_tokens = "" if pool.kv_tokens is None else f", kv_tokens: {pool.kv_tokens}"
    engine = {
        "embedded": f"backend: transformers\n    transformers: {{sources: [embedded]{kv_tokens}}}",
        "embedded-gguf": f"backend: llamacpp\n    llamacpp: {{model_path: embedded, parallel: {pool.slots}}}",
    }
    return f"""\
profiles:
  soak:
    model_id: soak
    gpu: {{max_model_len: {CONTEXT}, max_concurrent_requests: {pool.slots}}}
    {engine[profile]}
"""
