"""The sampler alone: ours against the processors of transformers' continuous batching."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingTemperatureLogitsWarper as _Temperature,
)
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingTopKLogitsWarper as _TopK,
)
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingTopPLogitsWarper as _TopP,
)
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from sidecar.generation import Sampling
from sidecar.worker.sampler import Row, choose
from tools.bench.figures import Point, alternating
from tools.bench.show import Show

VOCABULARY = 128256
TEMPERATURE, TOP_P, TOP_K = 0.8, 0.95, 50
CALLS = {1: 20, 16: 3}


@dataclass(frozen=True, slots=True)
class Case:
    """One distribution, one batch, with or without top-k."""

    batch: int
    peaked: bool
    top_k: int

    @property
    def title(self) -> str:
        """How it is called in the table."""
        rule = f"top_k {self.top_k}, top_p {TOP_P}" if self.top_k else f"top_p {TOP_P} alone"
        return f"{rule}, batch {self.batch}, {'peaked' if self.peaked else 'flat'} logits"

    @property
    def wanted(self) -> float:
        """How many times faster ours is to be."""
        return 20.0 if self.top_k else 8.0

    def logits(self, seed: int) -> Tensor:
        """Peaked as a model's own: a few tokens far above a wide crowd. Flat: the crowd alone."""
        made = torch.Generator().manual_seed(seed)
        crowd = torch.randn(self.batch, VOCABULARY, generator=made)
        if not self.peaked:
            return crowd
        ids = torch.randint(VOCABULARY, (self.batch, 8), generator=made)
        heights = 14 + 2 * torch.randn(self.batch, 8, generator=made)
        return (crowd * 2).scatter_(1, ids, heights)


CASES = tuple(Case(b, peaked, k) for k in (TOP_K, 0) for b in (1, 16) for peaked in (True, False))


def measure(pairs: int, show: Show) -> list[Point]:
    """All cases on one thread, milliseconds for one call."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_point(case, pairs, show) for case in CASES]
    finally:
        torch.set_num_threads(threads)


def theirs(batch: int, top_k: int) -> Callable[[Tensor], Tensor]:
    """What continuous batching does with a row for each request: warpers, softmax, multinomial."""
    steps = [
        (_Temperature(TemperatureLogitsWarper(TEMPERATURE)), _as_int32(TEMPERATURE, batch)),
        (_TopP(TopPLogitsWarper(TOP_P)), _as_int32(TOP_P, batch)),
    ]
    if top_k:
        steps.insert(1, (_TopK(TopKLogitsWarper(top_k)), torch.full((batch,), top_k, dtype=torch.int32)))

    def sample(logits: Tensor) -> Tensor:
        for warp, argument in steps:
            logits = warp(logits, argument)
        return torch.multinomial(logits.softmax(dim=-1), num_samples=1)

    return sample


def _as_int32(value: float, batch: int) -> Tensor:
    """Floats travel to those processors as the integers of the same bits."""
    return torch.full((batch,), value).view(torch.int32)


def ours(batch: int, top_k: int) -> Callable[[Tensor], list[int]]:
    """The same distribution from `sidecar.worker.sampler`."""
    sampling = Sampling(temperature=TEMPERATURE, top_p=TOP_P, top_k=top_k)
    rows = [Row(sampling, seed) for seed in range(batch)]

    def sample(logits: Tensor) -> list[int]:
        for row in rows:
            row.position += 1
        return choose(logits, rows)

    return sample


def _point(case: Case, pairs: int, show: Show) -> Point:
    show(f"sampler, {case.title}")
    own, other = ours(case.batch, case.top_k), theirs(case.batch, case.top_k)
    both = (lambda i: _call_ms(own, case, i), lambda i: _call_ms(other, case, i))
    alternating(*both, pairs=1)  # first calls allocate
    found = alternating(*both, pairs=pairs)
    return Point("sampler", case.title, "ms", *found, wanted=case.wanted, less_is_better=True)


def _call_ms(sample: Callable[[Tensor], object], case: Case, seed: int) -> float:
    """The mean of some calls on the same logits; each gets a copy, made outside the clock."""
    logits, spent_s = case.logits(seed), 0.0
    with torch.inference_mode():
        for _ in range(CALLS[case.batch]):
            given = logits.clone()
            began = time.perf_counter()
            sample(given)
            spent_s += time.perf_counter() - began
    return 1000 * spent_s / CALLS[case.batch]
