"""A model that sees, made on the spot: the embedded model's weights behind a random vision encoder.

llama-server takes two files: the text model and the `mmproj` (vision encoder and projector). The encoder
is a CLIP of two blocks in LLaVA 1.5's shape, projector type `mlp`: of those that llama.cpp reads it asks
for the fewest tensors and for no tokens of its own, so that any text model will do. Its answers mean
nothing, but they depend on the picture.

Sources: llama.cpp, tools/mtmd/clip.cpp (`load_hparams`, `load_tensors`) and tools/mtmd/models/llava.cpp.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFWriter

from sidecar.embedded import GGUF_Q8_0

IMAGE_SIZE_PX, PATCH_SIZE_PX = 28, 14
TOKENS_PER_IMAGE = (IMAGE_SIZE_PX // PATCH_SIZE_PX) ** 2
"""What one picture takes of the context, whatever its own size: it is padded to a square and scaled."""

# LLaVA takes what the last block but one gives, so that of two blocks one is computed.
HIDDEN, FEED_FORWARD, HEADS, BLOCKS = 32, 48, 2, 2
Tensors = dict[str, np.ndarray]


def make(folder: Path) -> tuple[Path, Path]:
    """The text model and its mmproj, written to `folder`; the same bytes every time, in milliseconds."""
    model, mmproj = folder / "tiny-vision.gguf", folder / "mmproj-tiny-vision.gguf"
    shutil.copyfile(GGUF_Q8_0, model)
    text_width = int(GGUFReader(model).fields["llama.embedding_length"].contents())
    write_mmproj(mmproj, text_width)
    return model, mmproj


def write_mmproj(path: Path, text_width: int) -> None:
    """An encoder with random weights whose outputs are as wide as the text model's embeddings."""
    writer = GGUFWriter(path, "clip")
    describe(writer, text_width)
    for name, values in tensors(np.random.default_rng(7), text_width).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def describe(writer: GGUFWriter, text_width: int) -> None:
    """The header fields that `load_hparams` asks for."""
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_projection_dim(text_width)
    writer.add_vision_image_size(IMAGE_SIZE_PX)
    writer.add_vision_patch_size(PATCH_SIZE_PX)
    writer.add_vision_embedding_length(HIDDEN)
    writer.add_vision_feed_forward_length(FEED_FORWARD)
    writer.add_vision_head_count(HEADS)
    writer.add_vision_block_count(BLOCKS)
    writer.add_vision_attention_layernorm_eps(1e-5)
    writer.add_vision_image_mean([0.5, 0.5, 0.5])
    writer.add_vision_image_std([0.5, 0.5, 0.5])
    writer.add_vision_use_gelu(True)


def tensors(rng: np.random.Generator, text_width: int) -> Tensors:
    """Every weight by its name in the file: patches, positions, blocks, projector."""

    def random(*shape: int) -> np.ndarray:
        return rng.normal(scale=0.3, size=shape).astype(np.float32)

    made: Tensors = {
        "v.patch_embd.weight": random(HIDDEN, 3, PATCH_SIZE_PX, PATCH_SIZE_PX),
        "v.position_embd.weight": random(TOKENS_PER_IMAGE, HIDDEN),
        "mm.0.weight": random(text_width, HIDDEN),
        "mm.0.bias": random(text_width),
        "mm.2.weight": random(text_width, text_width),
        "mm.2.bias": random(text_width),
    }
    for block in range(BLOCKS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            made[f"v.blk.{block}.{name}.weight"] = random(HIDDEN, HIDDEN)
        for name in ("ln1", "ln2"):
            made[f"v.blk.{block}.{name}.weight"] = np.ones(HIDDEN, np.float32)
            made[f"v.blk.{block}.{name}.bias"] = np.zeros(HIDDEN, np.float32)
        made[f"v.blk.{block}.ffn_up.weight"] = random(FEED_FORWARD, HIDDEN)
        made[f"v.blk.{block}.ffn_down.weight"] = random(HIDDEN, FEED_FORWARD)
    return made
