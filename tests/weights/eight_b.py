"""The headers of an 8B Llama's files, of 16 bits: what the hub has of it before anybody fetches 16 GB."""

from __future__ import annotations

import json

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip
LAYER = {
    "input_layernorm": (4096,), "post_attention_layernorm": (4096,), "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (1024, 4096), "self_attn.v_proj": (1024, 4096), "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (14336, 4096), "mlp.up_proj": (14336, 4096), "mlp.down_proj": (4096, 14336),
}  # fmt: skip
ENDS = {"model.embed_tokens": (128256, 4096), "lm_head": (128256, 4096), "model.norm": (4096,)}


def files() -> tuple[dict[str, bytes], int]:
    """The repository's files, the weights as their header alone; and how large they claim to be."""
    shapes = {f"{name}.weight": shape for name, shape in ENDS.items()}
    shapes |= {
        f"model.layers.{layer}.{name}.weight": shape for layer in range(32) for name, shape in LAYER.items()
    }
    entries, at = {}, 0
    for name, shape in shapes.items():
        end = at + 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    head = json.dumps(entries).encode()
    # And the first of the data: whoever reads a header asks for a little more.
    weights = len(head).to_bytes(8, "little") + head + bytes(2 * 1024 * 1024)
    config = json.dumps(CONFIG).encode()
    named = {"config.json": config, "model.safetensors": weights, "tokenizer.json": b"{}"}
    return named, 8 + len(head) + at
