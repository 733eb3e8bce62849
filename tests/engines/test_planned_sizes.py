"""The plan's sizes against transformers' own classes, built without data from published configurations."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, StaticCache

from sidecar import model_shape, stored
from sidecar.budget import MIB
from sidecar.stored import Stored

CONTEXT = 8192
# The sizes of config.json of meta-llama/Llama-3.1-8B and Llama-3.2-1B, mistralai/Mistral-7B-v0.1 (its window
# makes it the sliding one, too) and v0.3, Qwen/Qwen2.5-7B, google/gemma-2-9b, Qwen/Qwen3-30B-A3B.
CONFIGS: dict[str, dict[str, Any]] = {
    "Llama-3.1-8B": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    },
    "Llama-3.2-1B": {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "Mistral-7B-v0.3": {
        "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32768, "sliding_window": None,
    },
    "Mistral-7B-v0.1": {
        "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "sliding_window": 4096,
    },
    "Qwen2.5-7B": {
        "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "sliding_window": 131072,
        "use_sliding_window": False, "max_window_layers": 28,
    },
    "gemma-2-9b": {
        "model_type": "gemma2", "hidden_size": 3584, "intermediate_size": 14336, "num_hidden_layers": 42,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256, "vocab_size": 256000,
        "sliding_window": 4096,
    },
    "Qwen3-30B-A3B": {
        "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 48,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936,
        "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
    },
}  # fmt: skip


def config_of(name: str) -> Any:
    given = dict(CONFIGS[name])
    return AutoConfig.for_model(given.pop("model_type"), **given, max_position_embeddings=32768)


def header(network: torch.nn.Module) -> bytes:
    """What a file of the network's weights would begin with; the names that share memory stand once."""
    seen: set[int] = set()
    entries, at = {}, 0
    for name, tensor in network.named_parameters(remove_duplicate=False):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            end = at + tensor.numel() * 2
            entries[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [at, end]}
            at = end
    return json.dumps(entries).encode()


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_and_keys_are_those_of_the_class(name: str) -> None:
    config = config_of(name)
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    held = sum(p.numel() * 2 for p in network.parameters())
    found = Stored(tuple(stored.safetensors(header(network), name)))
    assert found.mib * MIB == pytest.approx(held, rel=0.001)
    assert {part: found.part_mib(part) > 0 for part in ("embedding", "head", "layers", "other")} == {
        "embedding": True, "head": not config.tie_word_embeddings, "layers": True, "other": True,
    }  # fmt: skip

    shape = model_shape.from_config(config.to_dict() | CONFIGS[name], name)
    assert sum(group.count for group in shape.kv) == shape.layers == config.num_hidden_layers
    assert sum(shape.kv_values(CONTEXT, ahead=0)) * 2 == pytest.approx(cached_bytes(config), rel=0.03)


def cached_bytes(config: Any) -> int:
    """The keys and values that transformers keeps of CONTEXT tokens."""
    cache = StaticCache(config=config, max_cache_len=CONTEXT)
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache.early_initialization(1, heads, dim, torch.bfloat16, torch.device("meta"))
    return sum(layer.keys.numel() * 2 + layer.values.numel() * 2 for layer in cache.layers)


def test_a_file_made_on_the_spot(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    config = AutoConfig.for_model(
        "llama", hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=500,
    )  # fmt: skip
    network = AutoModelForCausalLM.from_config(config)
    save_file(dict(network.state_dict()), tmp_path / "model.safetensors")
    raw = (tmp_path / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    found = Stored(tuple(stored.safetensors(raw[8 : 8 + length], "it")))
    assert found.mib * MIB == len(raw) - 8 - length == sum(p.numel() * 4 for p in network.parameters())
