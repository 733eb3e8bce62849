"""The worst mix of requests that a context allows, each from its number and a seed alone. Pure.

Six of eight fill the context to the last token: with the longest prompt, with the longest answer, or
half and half. Short ones come between, so that lengths alternate. Half of the prompts begin like others,
some clients leave, some answers are streamed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Ids that every vocabulary has, and has for text. A prompt of ids has the length that is meant for it.
FIRST_ID, LAST_ID = 260, 499
# The answer is made of these alone, so that it never ends before its longest.
ANSWER_IDS = tuple(range(FIRST_ID, LAST_ID, 30))
BIAS = 100
DEADLINE_S = 300
# Prompt and answer in eighths of the context, and whether the prompt begins like another.
SHAPES = (
    (7, 1, False), (1, 7, True), (0, 0, False), (4, 4, True),
    (7, 1, True), (1, 1, False), (4, 4, False), (1, 7, False),
)  # fmt: skip
SHORT_TOKENS = 8
PREFIXES = 4
STREAMED, LEAVING = 0.6, 0.2
LEAST_CONTEXT = 16


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. A client that leaves does so behind that share of its answer (0 to 1)."""

    prompt: tuple[int, ...]
    max_tokens: int
    seed: int
    streamed: bool
    leaves_at: float | None = None

    @property
    def reserved_tokens(self) -> int:
        """What has to be set aside for it."""
        return len(self.prompt) + self.max_tokens

    def body(self) -> dict[str, Any]:
        """For POST /v1/completions."""
        body: dict[str, Any] = {
            "prompt": list(self.prompt),
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "logit_bias": {str(id): BIAS for id in ANSWER_IDS},
            "timeout": DEADLINE_S,
        }
        return body | {"stream": True, "stream_options": {"include_usage": True}} if self.streamed else body


def ask(seed: int, index: int, context: int) -> Ask:
    """The request of that number; never more than `context` tokens, which is 16 or more."""
    assert context >= LEAST_CONTEXT, f"a context of {context} tokens is shorter than {LEAST_CONTEXT}"
    draw = random.Random(f"{seed}/{index}")  # noqa: S311 - repeatable on purpose
    prompt_eighths, answer_eighths, shared = SHAPES[index % len(SHAPES)]
    prompt_tokens = context * prompt_eighths // 8 or min(SHORT_TOKENS, context // 2)
    answer_tokens = context * answer_eighths // 8 or min(SHORT_TOKENS, context // 2)
    if prompt_eighths + answer_eighths == 8:
        answer_tokens = context - prompt_tokens
    return Ask(
        prompt=_prompt(seed, draw, prompt_tokens, shared=shared),
        max_tokens=answer_tokens,
        seed=index,
        streamed=draw.random() < STREAMED,
        leaves_at=draw.random() if draw.random() < LEAVING else None,
    )


def asks(seed: int, context: int) -> Iterator[Ask]:
    """All of them, in order, without end."""
    index = 0
    while True:
        yield ask(seed, index, context)
        index += 1


def _prompt(seed: int, draw: random.Random, tokens: int, *, shared: bool) -> tuple[int, ...]:
    """Three quarters of a shared prompt are the beginning of one of a few."""
    head: tuple[int, ...] = ()
    if shared:
        name = f"{seed}/prefix/{draw.randrange(PREFIXES)}"
        head = _ids(random.Random(name), tokens * 3 // 4)  # noqa: S311 - repeatable on purpose, no secret
    return head + _ids(draw, tokens - len(head))


def _ids(draw: random.Random, count: int) -> tuple[int, ...]:
    return tuple(draw.choices(range(FIRST_ID, LAST_ID + 1), k=count))
