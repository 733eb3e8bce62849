"""A checkpoint in gptqmodel's 4-bit format with random numbers in it: the shape, not the sense.

Written layer by layer, so that a model of many gigabytes needs the memory of one layer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.models.llama.configuration_llama import LlamaConfig

from tools.bench.checkpoint import tokenizer

BITS, GROUP, PER_INT32 = 4, 128, 8
# Of the symmetric grid the zero point is 8; the format stores one less, eight times in an int32.
ZEROS = 0x77777777
# Sixteen equal steps spread 4.6 steps; a weight is to spread 0.02.
SCALE = 0.02 / 4.6
QUANTIZATION = {
    "bits": BITS, "group_size": GROUP, "desc_act": False, "sym": True, "lm_head": False,
    "quant_method": "gptq", "checkpoint_format": "gptq", "pack_dtype": "int32",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a Llama. Widths are multiples of the group."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int = 8192

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads

    def linears(self) -> Mapping[str, tuple[int, int]]:
        """The quantised layers of one block: inputs and outputs."""
        h, i, kv = self.hidden, self.intermediate, self.kv_heads * self.head_dim
        return {
            "self_attn.q_proj": (h, h), "self_attn.k_proj": (h, kv), "self_attn.v_proj": (h, kv),
            "self_attn.o_proj": (h, h), "mlp.gate_proj": (h, i), "mlp.up_proj": (h, i),
            "mlp.down_proj": (i, h),
        }  # fmt: skip


LLAMA_8B = Shape("Llama-3.1-8B shape, 4-bit GPTQ", 4096, 14336, 32, 32, 8, 128256)
TINY = Shape("tiny shape, 4-bit GPTQ", 256, 384, 2, 4, 2, 512, 512)


def write(folder: Path, shape: Shape) -> Path:
    """The folder, complete; written anew each time with the same numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(7)
    files = {"ends": _ends(shape)} | {f"layer-{i:03}": None for i in range(shape.layers)}
    where, total_bytes = dict[str, str](), 0
    for index, (stem, tensors) in enumerate(files.items()):
        made = tensors or _layer(shape, f"model.layers.{index - 1}")
        save_file(made, folder / f"{stem}.safetensors", metadata={"format": "pt"})
        where |= dict.fromkeys(made, f"{stem}.safetensors")
        total_bytes += sum(t.numel() * t.element_size() for t in made.values())
    index_file = {"metadata": {"total_size": total_bytes}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index_file))
    _config(shape).save_pretrained(folder)
    (folder / "quantize_config.json").write_text(json.dumps(QUANTIZATION))
    tokenizer(shape.vocabulary).save_pretrained(folder)
    return folder


def _layer(shape: Shape, prefix: str) -> dict[str, Tensor]:
    norms = {
        f"{prefix}.{name}.weight": torch.ones(shape.hidden, dtype=torch.float16)
        for name in ("input_layernorm", "post_attention_layernorm")
    }
    packed = (
        {f"{prefix}.{name}.{part}": tensor for part, tensor in _packed(*sizes).items()}
        for name, sizes in shape.linears().items()
    )
    return {name: tensor for tensors in (norms, *packed) for name, tensor in tensors.items()}


def _packed(inputs: int, outputs: int) -> dict[str, Tensor]:
    """One linear layer: eight weights in an int32, one scale for each group of inputs."""
    groups = inputs // GROUP
    low, high = -(2**31), 2**31
    return {
        "qweight": torch.randint(low, high, (inputs // PER_INT32, outputs), dtype=torch.int32),
        "qzeros": torch.full((groups, outputs // PER_INT32), ZEROS, dtype=torch.int32),
        "scales": torch.full((groups, outputs), SCALE, dtype=torch.float16),
        "g_idx": torch.arange(inputs, dtype=torch.int32) // GROUP,
    }


def _ends(shape: Shape) -> dict[str, Tensor]:
    """What is not quantised: both embeddings and the last norm."""
    size = (shape.vocabulary, shape.hidden)
    return {
        "model.embed_tokens.weight": torch.randn(size, dtype=torch.float16) * 0.02,
        "lm_head.weight": torch.randn(size, dtype=torch.float16) * 0.02,
        "model.norm.weight": torch.ones(shape.hidden, dtype=torch.float16),
    }


def _config(shape: Shape) -> LlamaConfig:
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"], dtype="float16", hidden_size=shape.hidden,
        intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim,
        vocab_size=shape.vocabulary, max_position_embeddings=shape.context, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    config.update({"quantization_config": QUANTIZATION})
    return config
