"""The text that a model is shown while it is quantised: GPTQ keeps what matters for such text.

Half of the rows are chats, put together from the package's own short exchanges, through the model's
chat template. The other half is prose: the exchanges are too few for that (the layers of an 8B
model have 14336 inputs, and fewer tokens than inputs leave some of them unseen), so it is the
documentation that every Python carries: plain technical English with code in it.
"""

from __future__ import annotations

import importlib
import importlib.resources
import random
from collections.abc import Sequence
from typing import Any

from sidecar.worker.gptq_plan import ROW_TOKENS

SEED = 20
_CHARACTERS = ROW_TOKENS * 6  # more than a row's tokens are ever written with, in these texts

Chat = list[dict[str, str]]


def exchanges(text: str) -> list[tuple[str, str]]:
    """(question, answer) of each block; a block's first line, after `> `, is the question."""
    blocks = [block.strip() for block in text.split("\n> ")]
    pairs = [block.removeprefix("> ").partition("\n") for block in blocks if block]
    return [(question.strip(), answer.strip()) for question, _, answer in pairs]


def chats(pairs: Sequence[tuple[str, str]], count: int, seed: int = SEED) -> list[Chat]:
    """`count` conversations of at least a row's length, each in another order."""
    rng = random.Random(seed)  # noqa: S311 - an order, not a secret
    return [_chat(pairs, rng) for _ in range(count)]


def _chat(pairs: Sequence[tuple[str, str]], rng: random.Random) -> Chat:
    turns: Chat = []
    length = 0
    while length < _CHARACTERS:
        for question, answer in rng.sample(pairs, len(pairs)):
            turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            length += len(question) + len(answer)
            if length >= _CHARACTERS:
                break
    return turns


def prose(text: str, count: int) -> list[str]:
    """Up to `count` stretches of the text, none twice."""
    starts = range(0, len(text) - _CHARACTERS // 2, _CHARACTERS)
    return [text[start : start + _CHARACTERS] for start in starts[:count]]


def encoded(tokenizer: Any, rows: int) -> list[dict[str, list[int]]]:
    """The rows as gptqmodel takes them, through the tokenizer's chat template where it has one."""
    own = exchanges(
        importlib.resources.files(__package__).joinpath("calibration.txt").read_text(encoding="utf-8")
    )
    stretches = prose(_pythons_own(), rows // 2)
    rendered = [_rendered(tokenizer, chat) for chat in chats(own, rows - len(stretches))]
    cut = {"add_special_tokens": False, "truncation": True, "max_length": ROW_TOKENS}
    texts = [*stretches, *rendered]
    return [
        {"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in tokenizer(texts, **cut)["input_ids"]
    ]


def _rendered(tokenizer: Any, chat: Chat) -> str:
    if tokenizer.chat_template is None:
        return "\n\n".join(turn["content"] for turn in chat)
    return str(tokenizer.apply_chat_template(chat, tokenize=False))


def _pythons_own() -> str:
    """The documentation behind `help()`; nothing in a Python that was stripped of it."""
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        return ""
    return "\n\n".join(topics[name] for name in sorted(topics))
