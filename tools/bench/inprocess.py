"""The engine's loop in this process, without HTTP: for a card's limits and for a profiler."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sidecar.generation import GenerationRequest, Sampling
from sidecar.worker.choice import Job
from sidecar.worker.loop import Loop, Prepared
from sidecar.worker.messages import Begin, FromWorker, Released, prepare
from sidecar.worker.model import Model

GREEDY = Sampling(temperature=0.0)


class Engine:
    """A loaded model and its loop. `generate` may be called again and again."""

    def __init__(self, model: Model, batch_tokens: int) -> None:
        self.model = model
        self._said: list[FromWorker] = []
        self._loop = Loop(model, batch_tokens, self._said.append)
        self._requests = 0

    def generate(
        self, prompts: Sequence[Sequence[int]], new_tokens: int, sampling: Sampling = GREEDY
    ) -> tuple[float, float]:
        """All at once: seconds of prefill (until every prompt is computed), seconds of decode.

        RuntimeError if a request ended early or with an error.
        """
        self._said.clear()
        for ids in prompts:
            self._begin(tuple(ids), new_tokens, sampling)
        began = time.perf_counter()
        while not self._all_begun(len(prompts)):
            self._loop.turn()
        prefilled = time.perf_counter()
        while self._loop.stats().running:
            self._loop.turn()
        ended = time.perf_counter()
        self._check(len(prompts), new_tokens)
        return prefilled - began, ended - prefilled

    def _begin(self, ids: tuple[int, ...], new_tokens: int, sampling: Sampling) -> None:
        self._requests += 1
        request = prepare(GenerationRequest(str(self._requests), ids, new_tokens, sampling))
        self._loop.arrivals.put(request)
        self._loop.arrivals.put(Prepared(request.id, Job(request, ids, new_tokens, self._requests)))
        self._loop.arrivals.put(Begin(request.id))

    def _all_begun(self, count: int) -> bool:
        """Whether every request has its first token (or has ended)."""
        begun = sum(choice.generated > 0 for choice in self._loop._running.values())
        return begun + sum(isinstance(said, Released) for said in self._said) >= count

    def _check(self, count: int, new_tokens: int) -> None:
        ends = [said for said in self._said if isinstance(said, Released)]
        generated = [end.usage.completion_tokens for end in ends if end.usage and end.code is None]
        if generated != [new_tokens] * count:
            raise RuntimeError(f"not every request brought {new_tokens} tokens: {ends}")
