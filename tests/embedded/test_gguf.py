"""The GGUF files speak the same tokens as the transformers folder and hold the same sizes."""

import json
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from sidecar.embedded import GGUF_Q4_0, GGUF_Q8_0, MODEL_DIR
from tools.embedded_model.evaluate import prompt_of
from tools.embedded_model.text import held_out

CONTROL, USER_DEFINED = 3, 4
ODD_TEXTS = [
    "", " ", "\n\n\n", "  two  spaces ", "tabs\t\there", "naïve café, garçon",
    "日本 東京 こんにちは",
    "🚀🔥❤️ 👩‍👩‍👧", "мир θάλασσα żółw", "it's we'll I'M DON'T", "12345 3.14 1e-9",
    "<|im_start|>user\nx<|im_end|>\n",
    "<tool_call>\n{\"name\": \"x\"}\n</tool_call>", "a<|endoftext|>b", "\u00a0\u200b\ufeff",
    "e\u0301 \u1e69\u0323",
    "def f(x):\n    return x  # y\n", "x" * 300, "<|im_start", "</tool_call", "\x00\x7f",
    "“quotes” — dash…",
]  # fmt: skip


@pytest.fixture(scope="module", params=[GGUF_Q8_0, GGUF_Q4_0], ids=lambda path: path.stem)
def fields(request: pytest.FixtureRequest) -> dict[str, Any]:
    reader = GGUFReader(request.param)
    return {name: field.contents() for name, field in reader.fields.items()}


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))


def rebuilt(fields: dict[str, Any]) -> Tokenizer:
    """A tokenizer made of nothing but what the GGUF says."""
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocabulary = {token: at for at, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, types, strict=True):
        if kind in {CONTROL, USER_DEFINED}:
            tokenizer.add_tokens([AddedToken(token, normalized=False, special=kind == CONTROL)])
    return tokenizer


def test_token_ids_are_equal(fields: dict[str, Any], ours: Tokenizer) -> None:
    theirs = rebuilt(fields)
    texts = ODD_TEXTS + [prompt_of(q) for q in held_out()] + [q.answer for q in held_out()]
    for text in texts:
        assert theirs.encode(text).ids == ours.encode(text).ids, text


def test_every_text_round_trips(ours: Tokenizer) -> None:
    for text in ODD_TEXTS:
        assert ours.decode(ours.encode(text).ids, skip_special_tokens=False) == text


def test_characters_outside_ascii_take_several_tokens(ours: Tokenizer) -> None:
    assert [len(ours.encode(c).ids) for c in ("é", "日", "🚀")] == [2, 3, 4]


def test_special_tokens_and_template_are_equal(fields: dict[str, Any], ours: Tokenizer) -> None:
    turn_end, end = json.loads((MODEL_DIR / "config.json").read_text())["eos_token_id"]
    assert fields["tokenizer.ggml.pre"] == "gpt-2"
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert fields["tokenizer.ggml.eos_token_id"] == turn_end == ours.token_to_id("<|im_end|>")
    assert fields["tokenizer.ggml.bos_token_id"] == end == ours.token_to_id("<|endoftext|>")
    assert fields["tokenizer.chat_template"] == (MODEL_DIR / "chat_template.jinja").read_text()
    assert ours.encode("x").ids == ours.encode("x", add_special_tokens=False).ids


def test_shapes_are_equal(fields: dict[str, Any]) -> None:
    config = json.loads((MODEL_DIR / "config.json").read_text())
    assert fields["llama.context_length"] == config["max_position_embeddings"] == 2048
    assert fields["llama.embedding_length"] == config["hidden_size"]
    assert fields["llama.block_count"] == config["num_hidden_layers"]
    assert fields["llama.attention.head_count_kv"] == config["num_key_value_heads"]
    assert len(fields["tokenizer.ggml.tokens"]) == config["vocab_size"]


def test_files_are_named_as_they_are(ours: Tokenizer) -> None:
    assert Path(GGUF_Q8_0).stat().st_size > Path(GGUF_Q4_0).stat().st_size
    assert ours.get_vocab_size() == 2048
