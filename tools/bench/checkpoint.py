"""A model of 151 million random weights, made on the spot, that generates until it is told to stop."""

from __future__ import annotations

import itertools
import random
import string
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama.configuration_llama import LlamaConfig

VOCABULARY = 32768
MAX_TOKENS = 2048
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make(folder: Path) -> Path:
    """The folder with the checkpoint; made when it is not there yet, always with the same weights."""
    if not (folder / "complete").exists():
        torch.manual_seed(7)
        model = LlamaForCausalLM(_config()).float()
        model.generation_config.eos_token_id = None
        _silence_unprintable(model)
        model.save_pretrained(folder)
        tokenizer(VOCABULARY).save_pretrained(folder)
        (folder / "complete").touch()
    return folder


def tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One token for each byte of a text; every other id prints as a word, so that no step is silent."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ("".join(letters) for letters in itertools.product(string.ascii_lowercase, repeat=4))
    filler = [f"Ġ{word}" for word in itertools.islice(words, vocabulary - len(alphabet) - len(CONTROL))]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate([*alphabet, *filler])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(piece, special=True) for piece in CONTROL])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=CONTROL[2], pad_token=CONTROL[0], chat_template=CHAT_TEMPLATE
    )


def prompt(tokens: int, seed: str) -> str:
    """A text of exactly that many tokens; equal for equal seeds, else different from its first letters."""
    return "".join(random.Random(seed).choices(string.ascii_lowercase, k=tokens))


def _silence_unprintable(model: LlamaForCausalLM) -> None:
    """Bytes and control tokens never win: an answer that prints nothing has no first token to time."""
    with torch.no_grad():
        model.lm_head.weight[: len(pre_tokenizers.ByteLevel.alphabet())] = 0.0
        model.lm_head.weight[-len(CONTROL) :] = 0.0


def _config() -> LlamaConfig:
    return LlamaConfig(
        hidden_size=768, intermediate_size=2048, num_hidden_layers=16, num_attention_heads=12,
        num_key_value_heads=4, head_dim=64, vocab_size=VOCABULARY, tie_word_embeddings=False,
        max_position_embeddings=MAX_TOKENS, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
