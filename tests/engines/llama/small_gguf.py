"""Small GGUF models with random weights, of the kinds whose memory differs: dense, experts, windows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quants

Q8 = GGMLQuantizationType.Q8_0


@dataclass(frozen=True)
class Sizes:
    """A Llama, a Mixtral (`experts`), or a Gemma 2 (`window`, which every second layer has)."""

    architecture: str = "llama"
    hidden: int = 256
    intermediate: int = 768
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    vocabulary: int = 8000
    experts: int = 0
    window: int | None = None
    context: int = 32768


KINDS = {
    "dense": Sizes(),
    "experts": Sizes(experts=8),
    "window": Sizes(architecture="gemma2", window=512),
}


def write(sizes: Sizes, path: Path) -> Path:
    """The file; half a second."""
    writer = GGUFWriter(path, sizes.architecture)
    _sizes(writer, sizes)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"t{index}" for index in range(sizes.vocabulary)])
    writer.add_token_types([1] * sizes.vocabulary)
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    random = np.random.default_rng(0)
    for name, shape in _tensors(sizes).items():
        numbers = (random.standard_normal(shape) * 0.02).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, numbers)
        else:
            writer.add_tensor(name, quants.quantize(numbers, Q8), raw_dtype=Q8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _sizes(writer: GGUFWriter, sizes: Sizes) -> None:
    head = sizes.hidden // sizes.heads
    writer.add_context_length(sizes.context)
    writer.add_embedding_length(sizes.hidden)
    writer.add_block_count(sizes.layers)
    writer.add_feed_forward_length(sizes.intermediate)
    writer.add_head_count(sizes.heads)
    writer.add_head_count_kv(sizes.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(sizes.vocabulary)
    if sizes.window is not None:
        writer.add_key_length(head)
        writer.add_value_length(head)
        writer.add_sliding_window(sizes.window)
        writer.add_attn_logit_softcapping(50.0)
        writer.add_final_logit_softcapping(30.0)
    if sizes.experts:
        writer.add_expert_count(sizes.experts)
        writer.add_expert_used_count(2)


def _tensors(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    hidden, head = sizes.hidden, sizes.hidden // sizes.heads
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (sizes.vocabulary, hidden)}
    if sizes.window is None:  # Gemma's head is its embeddings
        found["output.weight"] = (sizes.vocabulary, hidden)
    found["output_norm.weight"] = (hidden,)
    for layer in range(sizes.layers):
        norms = ["attn_norm", "ffn_norm"] + (["post_attention_norm", "post_ffw_norm"] if sizes.window else [])
        parts = dict.fromkeys(norms, (hidden,))
        parts |= {"attn_q": (sizes.heads * head, hidden), "attn_output": (hidden, sizes.heads * head)}
        parts |= dict.fromkeys(("attn_k", "attn_v"), (sizes.kv_heads * head, hidden))
        found |= {f"blk.{layer}.{name}.weight": shape for name, shape in (parts | _feed(sizes)).items()}
    return found


def _feed(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    up, down = (sizes.intermediate, sizes.hidden), (sizes.hidden, sizes.intermediate)
    if not sizes.experts:
        return {"ffn_gate": up, "ffn_up": up, "ffn_down": down}
    each = sizes.experts
    experts = {"ffn_gate_exps": (each, *up), "ffn_up_exps": (each, *up), "ffn_down_exps": (each, *down)}
    return {"ffn_gate_inp": (each, sizes.hidden), **experts}
