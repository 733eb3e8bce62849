"""The trained weights as GGUF for llama.cpp: `python -m tools.embedded_model.export_gguf`.

Matrices in Q8_0 or Q4_0, norms in F32; the tokenizer, its special tokens and the chat template
go along, so that the file alone is enough.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import (
    MODEL_ARCH,
    GGMLQuantizationType,
    GGUFWriter,
    TokenType,
    get_tensor_name_map,
    quants,
)
from numpy.typing import NDArray
from safetensors.numpy import load_file

WORK = Path("build/embedded_model")
KINDS = {
    "q8_0": GGMLQuantizationType.Q8_0,
    "q4_0": GGMLQuantizationType.Q4_0,
    "f32": GGMLQuantizationType.F32,
}
FILE_TYPES = {"q8_0": 7, "q4_0": 2, "f32": 0}
SHIPPED = ("q8_0", "q4_0")

Matrix = NDArray[np.float32]


def permuted(weight: Matrix, heads: int) -> Matrix:
    """The rows of a query or key matrix in llama.cpp's order: the halves of a head interleaved."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weight.shape)


def add_sizes(writer: GGUFWriter, config: dict[str, Any]) -> None:
    """The shape of the model."""
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])


def token_types(tokenizer: dict[str, Any]) -> dict[str, int]:
    """The added tokens: control tokens, which are not text, and marks, which are."""
    return {
        token["content"]: TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
        for token in tokenizer["added_tokens"]
    }


def add_tokenizer(writer: GGUFWriter, folder: Path, config: dict[str, Any]) -> None:
    """Vocabulary, merges, special tokens and chat template."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary: dict[str, int] = dict(tokenizer["model"]["vocab"])
    vocabulary |= {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    ordered = sorted(vocabulary, key=lambda token: vocabulary[token])
    added = token_types(tokenizer)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(ordered)
    writer.add_token_types([added.get(token, TokenType.NORMAL) for token in ordered])
    merges = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    # llama.cpp loads no vocabulary without merges; two blanks are none of the benchmark's tokens.
    writer.add_token_merges(merges or ["Ġ Ġ"])
    turn_end, end = config["eos_token_id"]
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(turn_end)
    writer.add_eot_token_id(turn_end)
    writer.add_pad_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template((folder / "chat_template.jinja").read_text())


def add_weights(writer: GGUFWriter, folder: Path, config: dict[str, Any], kind: str) -> None:
    """Every tensor under llama.cpp's name."""
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, weight in sorted(load_file(folder / "model.safetensors").items()):
        target = names.get_name(name, try_suffixes=(".weight",))
        if target is None:
            raise ValueError(f"llama.cpp has no name for {name}")
        for part, count in heads.items():
            if part in name:
                weight = permuted(weight, count)
        if weight.ndim == 1:
            writer.add_tensor(target, weight.astype(np.float32))
        else:
            writer.add_tensor(target, quants.quantize(weight, KINDS[kind]), raw_dtype=KINDS[kind])


def export(folder: Path, target: Path, kind: str, *, title: str, ends: tuple[int, int] | None = None) -> None:
    """Write the model in `folder` as one GGUF file. `ends` are the ids that end a turn and a text."""
    config = json.loads((folder / "config.json").read_text())
    if ends is not None:
        config["eos_token_id"] = list(ends)
    writer = GGUFWriter(target, "llama")
    writer.add_name(title)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(2)
    add_sizes(writer, config)
    add_tokenizer(writer, folder, config)
    add_weights(writer, folder, config, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Export build/embedded_model/fp32 twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=WORK / "fp32")
    parser.add_argument("--target", type=Path, default=WORK)
    options = parser.parse_args()
    for kind in SHIPPED:
        target = options.target / f"embedded-{kind}.gguf"
        export(options.source, target, kind, title="LLM Sidecar embedded model")
        print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
