"""The tokenizer and the chat template: how a row becomes token ids, and which of them are learned.

A byte-level BPE with GPT-2's splitting, so that any text round-trips and llama.cpp's "gpt-2"
pre-tokenizer gives the same ids. Nothing is put before a prompt (no begin-of-text token).
"""

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tools.embedded_model.conversations import Chat
from tools.embedded_model.text import Raw, Row, rows

VOCABULARY = 2048
CONTEXT = 2048
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# Parsed as one token each, but text all the same: decoding keeps them.
MARKS = ["<tool_call>", "</tool_call>"]
TEMPLATE = Path(__file__).with_name("chat_template.jinja")
LEARNED = re.compile(r"(?<=<\|im_start\|>assistant\n).*?<\|im_end\|>", re.DOTALL)

Encoded = tuple[list[int], list[bool]]


@cache
def _template() -> Any:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(TEMPLATE.read_text())


def render(chat: Chat, *, ask: bool = False) -> str:
    """The conversation as text; with `ask`, up to where the assistant's next turn begins."""
    text = _template().render(messages=chat.messages, tools=chat.tools, add_generation_prompt=ask)
    return str(text)


def _plain(row: Row) -> str:
    return row.prompt + row.answer if isinstance(row, Raw) else render(row)


def train_tokenizer(sample: int = 12000) -> Tokenizer:
    """A tokenizer of `VOCABULARY` tokens from `sample` training rows.

    Rows with letters outside ASCII are left out: these stay bytes, so that one character
    is several tokens and whoever streams text has to put characters together.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(MARKS),
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    corpus = (text for text in map(_plain, rows(sample)) if text.isascii())
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in MARKS])
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f"the text gave {tokenizer.get_vocab_size()} tokens, not {VOCABULARY}")
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that must exist."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no {token}")
    return found


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokenizer and its chat template as transformers reads them."""
    make: Any = PreTrainedTokenizerFast
    fast = make(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        add_bos_token=False,
    )
    fast.chat_template = TEMPLATE.read_text()
    fast.save_pretrained(folder)
    # The name that every version of transformers knows.
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(config, indent=2) + "\n")


def _segments(row: Row) -> Iterator[tuple[str, bool]]:
    if isinstance(row, Raw):
        yield row.prompt, False
        yield row.answer + END_OF_TEXT, True
        return
    text, at = render(row), 0
    for learned in LEARNED.finditer(text):
        yield text[at : learned.start()], False
        yield learned.group(), True
        at = learned.end()


def encode(tokenizer: Tokenizer, row: Row) -> Encoded:
    """Token ids of a row, and for each whether the model learns to say it.

    Prompt and answer are encoded apart, as they are when a prompt is answered.
    """
    ids: list[int] = []
    learned: list[bool] = []
    for text, learn in _segments(row):
        piece = tokenizer.encode(text).ids
        ids += piece
        learned += [learn] * len(piece)
    return ids, learned


def encode_all(tokenizer: Tokenizer, source: Iterable[Row], longest: int) -> list[Encoded]:
    """Every row that fits into `longest` tokens."""
    encoded = (encode(tokenizer, row) for row in source)
    return [pair for pair in encoded if len(pair[0]) <= longest]


def packed(source: Iterator[Encoded], length: int, end: int) -> Iterator[Encoded]:
    """Rows joined by the end-of-text token, cut at `length`: context that does not matter."""
    while True:
        ids: list[int] = []
        learned: list[bool] = []
        while len(ids) < length:
            row = next(islice(source, 1), None)
            if row is None:
                return
            ids += [*row[0], end]
            learned += [*row[1], False]
        yield ids[:length], learned[:length]
