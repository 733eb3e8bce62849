"""Drives a `Loop` by hand: what the worker's threads do, in one thread and step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sidecar.generation import GenerationRequest, Sampling, TokenLogprob
from sidecar.worker.choice import Job
from sidecar.worker.loop import Loop, Prepared
from sidecar.worker.messages import Beat, Begin, Cancel, FromWorker, Output, Released, Step, prepare
from sidecar.worker.model import Model
from sidecar.worker.tokens import _BYTE_OF

GREEDY = Sampling(temperature=0.0)


class Driver:
    """`begin` requests, `turn` the loop, look at what it `sent`."""

    def __init__(self, model: Model, batch_tokens: int = 48) -> None:
        self.sent: list[FromWorker] = []
        self.model = model
        self.loop = Loop(model, batch_tokens, self.sent.append)

    def begin(
        self, id: str, ids: Sequence[int], max_tokens: int = 16, sampling: Sampling = GREEDY, **more: Any
    ) -> None:
        request = prepare(GenerationRequest(id, tuple(ids), max_tokens, sampling, **more))
        seed = 0 if sampling.seed is None else sampling.seed
        self.loop.arrivals.put(request)
        constraint = self.model.grammars.constraint(request)
        self.loop.arrivals.put(Prepared(id, Job(request, tuple(ids), max_tokens, seed, constraint)))
        self.loop.arrivals.put(Begin(id))

    def cancel(self, id: str) -> None:
        self.loop.arrivals.put(Cancel(id))

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.loop.turn()

    def finish(self) -> None:
        """Turn until nothing runs."""
        self.loop.turn()
        for _ in range(2000):
            if not self.loop.stats().running:
                return
            self.loop.turn()
        raise AssertionError("the loop never came to an end")

    def outputs(self, id: str, choice: int = 0) -> list[Output]:
        steps = [message for message in self.sent if isinstance(message, Step)]
        return [o for step in steps for o in step.outputs if (o.id, o.choice) == (id, choice)]

    def text(self, id: str, choice: int = 0) -> str:
        return "".join(output.text for output in self.outputs(id, choice))

    def ids(self, id: str, choice: int = 0) -> list[int]:
        """The ids of an answer that was asked for with logprobs: one byte a token."""
        scored = [t for output in self.outputs(id, choice) for t in output.logprobs]
        return [_id(self.model, t) for t in scored]

    def released(self, id: str) -> Released:
        found = [m for m in self.sent if isinstance(m, Released) and m.id == id]
        assert len(found) == 1, f"{len(found)} last words on {id}"
        return found[0]

    def beats(self) -> list[Beat]:
        return [message for message in self.sent if isinstance(message, Beat)]


def _id(model: Model, scored: TokenLogprob) -> int:
    """The vocabulary has one token for each byte, and control tokens with longer names."""
    name = _PRINTABLE[scored.token_bytes[0]] if len(scored.token_bytes) == 1 else scored.token
    return int(model.tokens.backend.token_to_id(name))


_PRINTABLE = {value: key for key, value in _BYTE_OF.items()}
