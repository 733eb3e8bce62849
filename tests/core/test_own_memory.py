"""Whose word stands for our own memory, and what it is worth."""

from __future__ import annotations

import pytest

from sidecar.budget import CUDA_CONTEXT_MIB, MIB, Plan
from sidecar.engine import Loading, Ready, ServiceState, Unloaded
from sidecar.generation import Capacity, EngineStats
from sidecar.own_memory import Own, own_memory

PLAN = Plan(10752.0, 5000.0, 300.0, 400.0, 2000.0, 100, 16, 1024)
ON_CARD = Ready("cuda:0", Capacity(1, 1, 16, 16), plan=PLAN)
ON_CPU = Ready("cpu", Capacity(1, 1, 16, 16), plan=PLAN)
RESIDENT = EngineStats(resident_bytes=900 * MIB, pid=7)


@pytest.mark.parametrize(
    ("state", "stats", "by_card", "own"),
    [
        (Unloaded(), EngineStats(), [], None),
        (Loading("restart", was_ready=True), RESIDENT, [], None),
        (ON_CPU, RESIDENT, [{7: 5 * MIB}], Own(900, "resident", 900)),
        (ON_CARD, RESIDENT, [], Own(7700, "plan", 7700)),
        (ON_CARD, RESIDENT, [{8: 5 * MIB}], Own(7700, "plan", 7700)),
        (ON_CARD, RESIDENT, [{7: 50 * MIB}], Own(50, "driver", 50)),
        (ON_CARD, RESIDENT, [{7: 50 * MIB}, {8: MIB}, {7: 70 * MIB}], Own(120, "driver", 70)),
        (Ready("cuda", Capacity(1, 1, 16, 16)), RESIDENT, [], None),
        (
            ON_CARD,
            EngineStats(memory_reserved_bytes=1000 * MIB, resident_bytes=MIB),
            [{7: 50 * MIB}],
            Own(1000 + CUDA_CONTEXT_MIB, "allocator", 1000 + CUDA_CONTEXT_MIB),
        ),
    ],
)
def test_own_memory(
    state: ServiceState, stats: EngineStats, by_card: list[dict[int, int]], own: Own | None
) -> None:
    assert own_memory(state, stats, by_card) == own


def test_a_plan_is_no_reading_and_resident_memory_is_not_the_cards() -> None:
    words = ("allocator", "driver", "plan", "resident")
    told = {source: Own(1.0, source, 1.0) for source in words}
    assert [told[source].is_measured for source in words] == [True, True, False, True]
    assert [told[source].on_card for source in words] == [True, True, True, False]
