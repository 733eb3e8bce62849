"""The memory arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.budget import FILL, Demand, Plan, growth_mib, paged, plan, workspace_mib
from sidecar.errors import ConfigError

LLAMA_8B_BYTES = 128 * 1024  # keys and values of one token


def demanded(
    weights_mib: float = 5500, wanted_tokens: int = 10**6, context: int = 6144, on_cuda: bool = True
) -> Demand:
    return paged(
        weights_mib=weights_mib, workspace_mib=200, on_cuda=on_cuda, bytes_per_token=LLAMA_8B_BYTES,
        page_tokens=256, context=context, wanted_tokens=wanted_tokens,
    )  # fmt: skip


def make(budget_mib: float | None, *demand: int, on_cuda: bool = True, **more: int) -> Plan:
    return plan(demanded(*demand, on_cuda=on_cuda, **more), budget_mib)


def test_an_8b_model_keeps_128_kib_for_each_token() -> None:
    assert LLAMA_8B_BYTES == 128 * 1024


def test_what_is_left_is_kv() -> None:
    made = make(10752)
    assert made.kv_mib == pytest.approx(10752 * FILL - 5500 - 200 - 400, abs=32)
    assert made.kv_tokens == made.pages * 256


def test_no_more_than_wanted() -> None:
    assert make(10752, wanted_tokens=8192).kv_tokens == 8192
    assert make(None, wanted_tokens=8192).kv_tokens == 8192


def test_at_least_one_context_is_wanted() -> None:
    assert make(None, wanted_tokens=10, context=6144).kv_tokens == 6144


def test_no_room_for_one_context_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(
        ConfigError, match=r"weights 8800 .* 6144 tokens 768 MiB .* 9892 MiB \(92% .* 10752\)"
    ):
        make(10752, weights_mib=8800)


def test_the_sentence_has_the_numbers() -> None:
    made = make(None, wanted_tokens=12288)
    assert made.sentence() == (
        "weights 5500 + workspace 200 + CUDA context 400 + KV 1536 = 7636 MiB; 12288 tokens at once, "
        "2 full contexts of 6144"
    )


def test_without_a_card_nothing_is_said_of_cuda() -> None:
    assert "CUDA" not in make(None, wanted_tokens=12288, on_cuda=False).sentence()
    with pytest.raises(ConfigError, match=r"workspace 200 \+ one context"):
        make(6000, on_cuda=False)


@given(st.integers(1000, 100_000), st.integers(0, 90_000), st.integers(1, 16384), st.integers(1, 10**6))
def test_every_plan_stays_below_the_first_rung(
    budget_mib: int, weights_mib: int, context: int, wanted: int
) -> None:
    try:
        made = make(budget_mib, weights_mib, wanted, context)
    except ConfigError:
        return
    assert made.total_mib <= budget_mib * 0.96
    assert made.kv_tokens >= context


@given(
    st.integers(500, 20_000), st.integers(1, 3000), st.integers(1, 10_000), st.integers(1, 4096),
    st.floats(0, 1),
)  # fmt: skip
def test_on_a_cpu_the_process_is_part_of_the_plan_and_growth_stays_within_it(
    budget_mib: int, process_mib: int, weights_mib: int, context: int, held: float
) -> None:
    demand = paged(
        weights_mib=weights_mib, workspace_mib=50, on_cuda=False, bytes_per_token=LLAMA_8B_BYTES,
        page_tokens=16, context=context, wanted_tokens=10**6, process_mib=process_mib,
    )  # fmt: skip
    assert demand.fixed_mib == process_mib + weights_mib + 50
    try:
        made = plan(demand, budget_mib)
    except ConfigError:
        assert demand.least_mib > budget_mib * FILL
        return
    assert made.total_mib <= budget_mib * FILL
    resident_mib = (made.total_mib - made.workspace_mib) * held
    assert resident_mib + growth_mib(made, resident_mib, 7.0) + 7.0 <= max(
        budget_mib * FILL, resident_mib + 7
    )


def test_what_holds_more_than_was_planned_is_refused_before_it_serves() -> None:
    made = make(10752)
    with pytest.raises(ConfigError, match=r"loaded it holds 9800 MiB, and a step takes 200, .* 9892 MiB"):
        growth_mib(made, 9800, 0)


def test_on_a_card_main_memory_is_not_counted() -> None:
    assert paged(
        weights_mib=1, workspace_mib=1, on_cuda=True, bytes_per_token=1, page_tokens=256, context=256,
        wanted_tokens=256, process_mib=1000,
    ).process_mib == 0  # fmt: skip


def test_without_a_card_the_process_is_named() -> None:
    demand = paged(
        weights_mib=100, workspace_mib=10, on_cuda=False, bytes_per_token=LLAMA_8B_BYTES, page_tokens=16,
        context=512, wanted_tokens=512, process_mib=900,
    )  # fmt: skip
    assert plan(demand, None).sentence().startswith("process 900 + weights 100 + workspace 10 + KV 64 = 1074")


def test_workspace_grows_with_the_batch() -> None:
    assert workspace_mib(1024, 4096, 14336, 0) > 1.9 * workspace_mib(512, 4096, 14336, 0)
