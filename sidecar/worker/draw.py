"""The next token of each choice out of a step's logits, with its scores or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sidecar.errors import EngineFault, SidecarError
from sidecar.worker import sampler
from sidecar.worker.choice import Choice


@dataclass(frozen=True, slots=True)
class Drawn:
    """`scores` are (id, log probability) pairs, the chosen token's first; None where nobody asked."""

    token: int
    scores: list[tuple[int, float]] | None = None
    error: SidecarError | None = None


def draw(logits: torch.Tensor, choices: Sequence[Choice]) -> list[Drawn]:
    """One for each row of `logits`, which are changed. An error is that choice's own."""
    asked = [row for row, choice in enumerate(choices) if choice.alternatives is not None]
    raw = dict(zip(asked, logits[asked], strict=True))  # a copy: choosing changes the logits
    tokens = sampler.choose(logits, [choice.row for choice in choices])
    return [_drawn(choice, tokens[row], raw.get(row)) for row, choice in enumerate(choices)]


def _drawn(choice: Choice, token: int, raw: torch.Tensor | None) -> Drawn:
    if token < 0:
        return Drawn(token, error=_no_token(choice, token))
    if raw is None or choice.alternatives is None:
        return Drawn(token)
    return Drawn(token, sampler.logprobs(raw, token, choice.alternatives))


def _no_token(choice: Choice, token: int) -> SidecarError:
    if token == sampler.NOTHING_ALLOWED and choice.row.constraint is not None:
        return choice.row.constraint.error
    return EngineFault("The model's output is not a number.")
