"""The sampler against the definition, written out the slow way."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from sidecar.generation import Sampling
from sidecar.worker import sampler
from sidecar.worker.sampler import NOT_A_NUMBER, Row, choose, uniform

DRAWS = 2000
FLAT = torch.linspace(0.0, 0.7, 300)
EQUAL = torch.zeros(300)
PEAKED = torch.cat([torch.tensor([6.0, 5.5, 5.0, 4.0]), torch.linspace(0.0, 1.0, 296)])
PLAIN = Sampling()


def defined(logits: torch.Tensor, s: Sampling) -> torch.Tensor:
    """Temperature, top-k, then top-p and min-p on what is left; of equals the lower id first."""
    p = torch.softmax(logits.double() / s.temperature, dim=-1)
    ordered, ids = p.sort(descending=True, stable=True)
    if s.top_k:
        ordered[s.top_k :] = 0.0
    ordered = ordered / ordered.sum()
    before = ordered.cumsum(0) - ordered
    ordered[(before >= s.top_p) | (ordered < s.min_p * ordered[0])] = 0.0
    result = torch.zeros_like(p)
    result[ids] = ordered / ordered.sum()
    return result


def drawn(logits: torch.Tensor, s: Sampling, count: int = DRAWS) -> Counter[int]:
    """Tokens of `count` rows that differ in nothing but the position."""
    found: Counter[int] = Counter()
    for start in range(0, count, 500):
        rows = [Row(s, seed=11, position=i) for i in range(start, start + 500)]
        found.update(choose(logits.repeat(500, 1), rows))
    return found


@pytest.mark.parametrize("logits", [FLAT, EQUAL, PEAKED], ids=["flat", "equal", "peaked"])
@pytest.mark.parametrize(
    "s",
    [
        PLAIN,
        Sampling(temperature=0.7),
        Sampling(top_p=0.9),
        Sampling(temperature=1.3, top_p=0.5),
        Sampling(top_p=0.05),
        Sampling(top_k=20),
        Sampling(top_k=50, top_p=0.8),
        Sampling(min_p=0.6),
        Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05),
    ],
    ids=str,
)
def test_draws_follow_the_definition(logits: torch.Tensor, s: Sampling) -> None:
    """Chi-square over the support; nothing outside of it, ever. p > 1e-4: one in 10,000 by chance."""
    expected = defined(logits, s) * DRAWS
    found = drawn(logits, s)
    if s.top_k and logits is EQUAL:  # which of equals are among the k largest is nobody's promise
        assert len(found) <= s.top_k
        return
    support = expected > 0
    assert all(support[token] for token in found)
    observed = torch.tensor([float(found[i]) for i in range(len(expected))], dtype=torch.float64)
    # Cells of fewer than five expected draws are pooled, as the test demands.
    large = expected >= 5
    cells = [(observed[large], expected[large])]
    if (rest := expected[~large].sum()) >= 5:
        cells.append((observed[~large].sum()[None], rest[None]))
    seen, wanted = (torch.cat(part) for part in zip(*cells, strict=True))
    if len(seen) > 1:
        assert chisquare(seen.numpy(), (wanted * seen.sum() / wanted.sum()).numpy()).pvalue > 1e-4


@pytest.mark.parametrize("width", [255, 256, 300, 4096, 5000])
def test_the_largest_are_found_at_any_width(width: int) -> None:
    logits = torch.randn(3, width, generator=torch.Generator().manual_seed(width))
    for k in (1, 5, 20):
        values, ids = sampler._largest(logits, k)
        assert torch.equal(values, logits.topk(k).values)
        assert torch.equal(logits.gather(1, ids), values)


def test_the_numbers_are_uniform_and_of_their_own() -> None:
    numbers = [
        uniform(seed, c, p, a) for seed in range(5) for c in range(4) for p in range(100) for a in (0, 1)
    ]
    assert kstest(numbers, "uniform").pvalue > 1e-3
    assert len(set(numbers)) == len(numbers)
    assert uniform(-1, 0, 0) == uniform(2**64 - 1, 0, 0)


def test_a_row_draws_the_same_alone_and_in_company() -> None:
    g = torch.Generator().manual_seed(3)
    logits = torch.randn(16, 2048, generator=g) * 3
    kinds = [PLAIN, Sampling(top_p=0.8), Sampling(top_k=40), Sampling(temperature=0.0), Sampling(min_p=0.1)]
    rows = [Row(kinds[i % 5], seed=i, position=i) for i in range(16)]
    together = choose(logits.clone(), rows)
    assert together == [choose(logits[i : i + 1].clone(), [rows[i]])[0] for i in range(16)]
    back = choose(logits.flip(0).clone(), rows[::-1])
    assert together == back[::-1]


def test_greedy_takes_the_best() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])
    assert choose(logits, [Row(Sampling(temperature=0.0), 0)] * 2) == [1, 0]


def test_a_top_k_above_the_vocabulary_is_the_vocabulary() -> None:
    s = Sampling(top_k=10_000)
    assert drawn(PEAKED, s, 500) == drawn(PEAKED, PLAIN, 500)


def test_a_row_that_is_not_a_number_is_named_and_costs_no_other() -> None:
    logits = torch.tensor([[0.0, math.nan, 1.0], [0.0, 9.0, 1.0], [math.inf, 0.0, 0.0]])
    rows = [Row(PLAIN, 0), Row(Sampling(temperature=0.0), 0), Row(Sampling(top_k=2), 0)]
    assert choose(logits, rows) == [NOT_A_NUMBER, 1, NOT_A_NUMBER]


def chosen(
    logits: list[float], s: Sampling, counts: dict[int, int], prompt: frozenset[int] = frozenset()
) -> int:
    greedy = Sampling(**{**{f: getattr(s, f) for f in s.__slots__}, "temperature": 0.0})
    return choose(torch.tensor([logits]), [Row(greedy, 0, prompt_ids=prompt, counts=counts)])[0]


@pytest.mark.parametrize(
    ("s", "counts", "token"),
    [
        (Sampling(), {}, 0),
        (Sampling(logit_bias=((2, 5.0),)), {}, 2),
        (Sampling(logit_bias=((0, -100.0),)), {}, 1),
        (Sampling(presence_penalty=1.0), {0: 1}, 1),
        (Sampling(frequency_penalty=0.4), {0: 1}, 0),
        (Sampling(frequency_penalty=0.4), {0: 2}, 1),
        (Sampling(repetition_penalty=2.0), {0: 1}, 1),
    ],
)
def test_bias_and_penalties(s: Sampling, counts: dict[int, int], token: int) -> None:
    assert chosen([2.0, 1.5, 0.0], s, counts) == token


def test_the_repetition_penalty_knows_the_prompt_and_the_sign() -> None:
    s = Sampling(repetition_penalty=2.0)
    assert chosen([2.0, 1.5, 0.0], s, {}, frozenset([0])) == 1
    assert chosen([-1.0, -1.5, -9.0], s, {}, frozenset([0])) == 1


def test_logprobs_are_the_models_own() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    expected = torch.log_softmax(logits, -1)[0].tolist()
    found = sampler.logprobs(logits[0], 0, 2)
    assert [i for i, _ in found] == [0, 2, 1]
    assert [p for _, p in found] == pytest.approx([expected[0], expected[2], expected[1]])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=40),
    st.floats(0.05, 2.0),
    st.floats(0.01, 1.0),
    st.integers(0, 50),
    st.floats(0.0, 1.0),
    st.integers(0, 2**63 - 1),
)
def test_no_draw_leaves_the_support(
    values: list[float], temperature: float, top_p: float, top_k: int, min_p: float, seed: int
) -> None:
    s = Sampling(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p)
    logits = torch.tensor(values)
    token = choose(logits[None].clone(), [Row(s, seed)])[0]
    # A token on the very edge may be in or out by the last bit of a float32, and which of several
    # equals are among the k largest is nobody's promise.
    loose = Sampling(temperature, min(top_p + 1e-4, 1.0), top_k, max(min_p - 1e-4, 0.0))
    allowed = logits[(defined(logits, s) > 0) | (defined(logits, loose) > 0)]
    # Two logits whose weights are one float32 apart are equals too.
    assert torch.isclose(allowed, logits[token], rtol=0, atol=1e-4).any()
