"""Whether VRAM_BUDGET is kept on a card: soaks at some numbers of streams, and an attempt above the cap."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.program import program, until
from tools.bench import above_cap, machine
from tools.bench.figures import rounded
from tools.bench.high_water import HighWater
from tools.bench.servers import ROOT
from tools.bench.show import Show

LOWER_CAP = Path(__file__).with_name("lower_cap")
READY_S = 1200.0  # Marlin is compiled for the card at hand at its first use
SOAK = (sys.executable, "-m", "sidecar", "soak", "--json")
NOT_WELL = 1
# The attempt's prompt, and the tokens of one step of it: what a step makes is far more than the cap leaves.
LONG, LONG_STEP = 4096, 2048


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is kept to what. The context is short enough for many streams to lie in the budget at once.

    `device` cpu, with the budget in main memory, tries the soaks where there is no card.
    """

    budget_mib: int = 10752
    streams: Sequence[int] = (1, 8, 64)
    minutes: float = 2.0
    context: int = 1024
    device: str = "cuda"

    def flags(self, folder: Path, streams: int, context: int | None = None) -> tuple[str, ...]:
        """The sidecar's own, for the model in the folder."""
        budget = "--vram_budget" if self.device == "cuda" else "--memory_budget"
        return (
            "--model_path", str(folder), "--device", self.device, budget, f"{self.budget_mib}MiB",
            "--context_size", str(context or self.context), "--parallel", str(streams),
        )  # fmt: skip


Soaked = Callable[[Wanted, Path, int], dict[str, Any]]
Attempted = Callable[[Wanted, Path], dict[str, Any]]


def measure(
    wanted: Wanted,
    folder: Path,
    show: Show,
    soak: Soaked | None = None,
    attempt: Attempted | None = None,
    library: str = "pynvml",
) -> dict[str, Any]:
    """All of it, as it is written. `soak` and `attempt` stand for the real ones where there is no card."""
    rows, card = [], ""
    for streams in wanted.streams:
        show(f"soak at {streams} streams, {wanted.minutes:g} minutes")
        with HighWater(library) as seen:
            card = seen.card()
            told = (soak or soaked)(wanted, folder, streams)
        rows.append(row(wanted, streams, told, seen.mib))
    show("an attempt above the cap")
    return {
        "machine": machine.facts(),
        "card": card,
        "budget_mib": wanted.budget_mib,
        "context": wanted.context,
        "minutes": wanted.minutes,
        "soaks": rows,
        "attempt": (attempt or attempted)(wanted, folder),
    }


def row(wanted: Wanted, streams: int, told: dict[str, Any], high_water_mib: float) -> dict[str, Any]:
    """One soak's report beside the driver's own figure."""
    plan_mib = told["plan_mib"]
    return {
        "streams": streams,
        "requests": told["requests"],
        "tokens_per_s": rounded(told["tokens_per_s"]),
        "failed_for_memory": told["failed_for_memory"],
        "failures": told["failures"],
        "verdict": told["verdict"],
        "plan_mib": plan_mib,
        "high_water_mib": rounded(high_water_mib),
        "plan_error_percent": None if not plan_mib else rounded((high_water_mib / plan_mib - 1) * 100),
        "kept": high_water_mib <= wanted.budget_mib and not told["failed_for_memory"],
    }


def is_kept(found: dict[str, Any]) -> bool:
    """Whether every soak stayed under the budget, and the attempt cost one request."""
    return all(one["kept"] for one in found["soaks"]) and above_cap.costs_one(found["attempt"])


def soaked(wanted: Wanted, folder: Path, streams: int, command: Sequence[str] = SOAK) -> dict[str, Any]:
    """The report of `llm-sidecar soak`, which starts a sidecar of its own. RuntimeError without one."""
    line = (*command, "--minutes", f"{wanted.minutes:g}", *wanted.flags(folder, streams))
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, NOT_WELL) or not done.stdout.strip():
        raise RuntimeError(
            f"the soak at {streams} streams ended with {done.returncode}: {done.stderr[-2000:]}"
        )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def attempted(wanted: Wanted, folder: Path) -> dict[str, Any]:
    """A sidecar of its own, whose worker's cap is lowered by a signal."""
    environ = {"PYTHONPATH": str(LOWER_CAP), "HF_HUB_OFFLINE": "1"}
    # Where the driver's library is, on some machines.
    environ |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    flags = (*wanted.flags(folder, 2 * above_cap.OTHERS, LONG), "--batch_size", str(LONG_STEP))
    with tempfile.TemporaryDirectory() as place, program(Path(place), *flags, **environ) as server:
        until(server.ready, "ready", READY_S)
        worker = server.child()
        return asyncio.run(
            above_cap.attempt(
                server.url,
                LONG,
                lambda: worker.send_signal(signal.SIGUSR1),
                lambda: worker.send_signal(signal.SIGUSR2),
            )
        )
