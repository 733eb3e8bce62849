"""One model for both engines: the weights of the embedded Q8_0 file, unpacked to 32 bits, in both forms.

`folder` is the way back from `tools.embedded_model.export_gguf`: every matrix is unpacked, and the rows of
queries and keys are put back into transformers' order. The GGUF file of the same numbers is its export.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from gguf import MODEL_ARCH, GGUFReader, get_tensor_name_map, quants
from numpy.typing import NDArray
from safetensors.numpy import save_file

Matrix = NDArray[np.float32]


def folder(gguf: Path, model_dir: Path, target: Path) -> Path:
    """`target`, with the weights of `gguf` and everything else of `model_dir`, which is of the same model."""
    target.mkdir()
    config = json.loads((model_dir / "config.json").read_text())
    del config["quantization_config"]
    (target / "config.json").write_text(json.dumps(config))
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(model_dir / name, target / name)
    save_file(_weights(gguf, config), target / "model.safetensors", metadata={"format": "pt"})
    return target


def _weights(gguf: Path, config: dict[str, int]) -> dict[str, Matrix]:
    theirs = {tensor.name: tensor for tensor in GGUFReader(gguf).tensors}
    layers = range(config["num_hidden_layers"])
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    parts += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm")
    ours = [f"model.layers.{layer}.{part}.weight" for layer in layers for part in parts]
    ours += ["model.embed_tokens.weight", "model.norm.weight"]
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    found: dict[str, Matrix] = {}
    for name in ours:
        tensor = theirs.pop(names.get_name(name, try_suffixes=(".weight",)) or name)
        matrix = quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        count = next((count for part, count in heads.items() if part in name), 0)
        found[name] = restored(matrix, count) if count else matrix
    assert not theirs, f"not taken over: {', '.join(theirs)}"
    return found


def restored(weight: Matrix, heads: int) -> Matrix:
    """The rows of a query or key matrix in transformers' order: the interleaved halves of a head apart."""
    half = weight.shape[0] // heads // 2
    return np.ascontiguousarray(weight.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(weight.shape))
