"""How much memory is ours: the one figure that the rungs, the gauges, /health and the watchdog see. Pure.

Where it comes from depends on who holds it, and is said with it:

    allocator   the worker's own: what torch reserved on the card, and the CUDA context beside it
    driver      llama-server on a card: what the driver says of its process
    plan        the same where the driver names no process, as in most containers: a plan, no reading
    resident    without a card: the resident memory of the engine's process
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sidecar.budget import CUDA_CONTEXT_MIB, MIB, Plan
from sidecar.engine import Ready, ServiceState
from sidecar.generation import EngineStats
from sidecar.ladder import Rung

Source = Literal["allocator", "driver", "plan", "resident"]


@dataclass(frozen=True, slots=True)
class Own:
    """`highest_mib` is the share of the one card with the most of it: a budget is a card's."""

    mib: float
    source: Source
    highest_mib: float

    @property
    def on_card(self) -> bool:
        """Whether it is the card's memory."""
        return self.source != "resident"

    @property
    def is_measured(self) -> bool:
        """Whether somebody looked; a plan never climbs, and clears nobody."""
        return self.source != "plan"


@dataclass(frozen=True, slots=True)
class Memory:
    """All that there is to say of memory now; KV in tokens. None is not known, or no limit."""

    own: Own | None
    budget_mib: float | None
    rung: Rung
    kv_reserved: int | None
    kv_total: int | None
    plan: Plan | None


def own_memory(
    state: ServiceState, stats: EngineStats, by_card: Sequence[Mapping[int, int]] = ()
) -> Own | None:
    """Our memory now; None while nobody can tell. `by_card` has each card's bytes by process id.

    What an engine said before it died, or loads again, is not what is held now.
    """
    if not isinstance(state, Ready):
        return None
    if stats.memory_reserved_bytes:
        return _on_one_card(stats.memory_reserved_bytes / MIB + CUDA_CONTEXT_MIB, "allocator")
    if not state.device.startswith("cpu"):
        shares = [held[stats.pid] / MIB for held in by_card if stats.pid is not None and stats.pid in held]
        if shares:
            return Own(sum(shares), "driver", max(shares))
        return None if state.plan is None else _on_one_card(state.plan.total_mib, "plan")
    return _on_one_card(stats.resident_bytes / MIB, "resident") if stats.resident_bytes else None


def _on_one_card(mib: float, source: Source) -> Own:
    return Own(mib, source, mib)
