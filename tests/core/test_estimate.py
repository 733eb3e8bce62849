"""Whether it fits, in one sentence, and the smallest change that would make it fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.budget import FILL, Demand
from sidecar.estimate import estimate

OTHERS = {"hermes-3-8b-gptq": 7332.0, "hermes-3-8b-q4_k_m": 6828.0, "stheno-q4_k_m": 5804.0}


def paged(weights_mib: float = 8660, context: int = 6144) -> Demand:
    """An 8B in one pool of pages of 256 tokens, 128 KiB each."""
    return Demand(weights_mib, 200, 400, 32, 256, context, context // 256, 8 * context // 256)


def slots(count: int, weights_mib: float = 4692, context: int = 6144) -> Demand:
    """The same in llama-server's way: whole contexts, all of them."""
    return Demand(weights_mib, 260, 400, context / 8, context, context, count, count)


def test_it_fits() -> None:
    found = estimate("p", paged(5500), 10752)
    assert found.sentence == "fits: 4 requests of 6144 tokens (30208 tokens at once)"
    assert estimate("p", slots(2), 10752).sentence == "fits: 2 requests of 6144 tokens (12288 tokens at once)"


@pytest.mark.parametrize(
    ("demand", "budget_mib", "reason", "changes"),
    [
        (
            paged(), 10752, "keys and values of 1 request of 6144 tokens are 768 MiB, 632 are left",
            ("a context of 4864", "hermes-3-8b-gptq", "a budget of 11008 MiB"),
        ),
        (
            paged(16000), 10752, "weights alone are 16000 MiB, 92% of 10752 MiB are 9892",
            ("hermes-3-8b-gptq", "a budget of 18944 MiB"),
        ),
        (
            paged(9500), 10752,
            "weights, workspace and CUDA context are 10100 MiB, 92% of 10752 MiB are 9892",
            ("hermes-3-8b-gptq", "a budget of 12032 MiB"),
        ),
        (
            slots(8), 10752, "keys and values of 8 requests of 6144 tokens are 6144 MiB, 4540 are left",
            ("5 requests at once", "hermes-3-8b-gptq", "a budget of 12544 MiB"),
        ),
    ],
)  # fmt: skip
def test_it_does_not(demand: Demand, budget_mib: float, reason: str, changes: tuple[str, ...]) -> None:
    found = estimate("hermes-3-8b-8bit", demand, budget_mib, OTHERS)
    assert (found.plan, found.reason, found.changes) == (None, reason, changes)
    assert found.sentence == f"does not fit: {reason}; use {' or '.join(changes)}"


def test_only_the_own_family_is_offered() -> None:
    assert estimate("stheno-q6_k", paged(7000), 6656, OTHERS).changes[0] == "stheno-q4_k_m"
    assert estimate("other", paged(7000), 6656, OTHERS).changes == ("a budget of 9216 MiB",)


@given(
    weights=st.integers(1, 60_000), context=st.integers(1, 500).map(lambda n: n * 256),
    budget=st.integers(1, 10**5), count=st.integers(1, 40), is_paged=st.booleans(),
)  # fmt: skip
def test_every_change_that_is_named_would_make_it_fit(
    weights: int, context: int, budget: int, count: int, is_paged: bool
) -> None:
    def demand(context: int, count: int) -> Demand:
        return paged(weights, context) if is_paged else slots(count, weights, context)

    found = estimate("p", demand(context, count), budget)
    assert (found.plan is None) == (found.demand.least_mib > budget * FILL)
    for change in found.changes:
        words = change.split()
        if "context" in words:
            assert estimate("p", demand(int(words[-1]), count), budget).plan is not None
        elif "once" in words:
            assert estimate("p", demand(context, int(words[0])), budget).plan is not None
        else:
            assert estimate("p", demand(context, count), int(words[-2])).plan is not None
