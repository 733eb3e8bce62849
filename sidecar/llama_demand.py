"""What a llama-server takes, from the headers of its model's files: nothing is loaded. Pure.

It sets a whole context aside for each of its slots, at its start.
"""

from __future__ import annotations

from dataclasses import replace

from sidecar.budget import CUDA_CONTEXT_MIB, MIB, Demand
from sidecar.llama_args import CHECKPOINTS
from sidecar.model_shape import ModelShape
from sidecar.profiles import LlamaCpp, Profile
from sidecar.stored import Model, StoredTensor

# Bytes of one number in llama.cpp's cache: blocks of 32 with a scale, or with a scale and a minimum.
CACHE_BYTES = {
    "f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32, "iq4_nl": 18 / 32,
    "q4_1": 20 / 32, "q4_0": 18 / 32,
}  # fmt: skip
# llama-server's own sizes where a profile says none: tokens of one physical batch, and the step in
# which contexts are rounded up (ggml-org/llama.cpp, llama-context.cpp).
UBATCH_TOKENS, CONTEXT_STEP = 512, 256
# Resident beside the model: the program with its libraries, and its vocabulary (measured, 0.7.0: 25 MiB,
# and 10 more when 16 slots are at work; 180 bytes for a token and 100 for a merge, of which there
# are about two for each token).
PROCESS_MIB, SLOT_MIB, TOKEN_BYTES = 26.0, 0.6, 400


def llama_demand(profile: Profile, model: Model, *, on_gpu: bool) -> Demand:
    """What it takes of the cards, or of main memory where it uses none."""
    block = profile.llamacpp
    assert block is not None
    on_card = _layers_on_card(model, block) if on_gpu else frozenset(range(model.shape.layers))
    share = len(on_card) / max(model.shape.layers, 1)
    batch = min(block.ubatch_size or profile.gpu.max_batch_tokens or UBATCH_TOKENS, profile.context)
    rounded = -(-profile.context // CONTEXT_STEP) * CONTEXT_STEP
    cache_mib = _cache_mib(model.shape, block, rounded, batch) * share
    return Demand(
        weights_mib=_llama_weights_mib(model, block, on_card, on_gpu=on_gpu) + model.mmproj_mib,
        workspace_mib=_compute_mib(model.shape, block, batch, rounded, on_gpu=on_gpu),
        context_mib=CUDA_CONTEXT_MIB * max(profile.gpu.cards, 1) if on_gpu else 0.0,
        page_mib=cache_mib if on_gpu else cache_mib + checkpoints_mib(model.shape, block),
        page_tokens=profile.context,
        context=profile.context,
        needed_pages=profile.slots,
        wanted_pages=profile.slots,
        process_mib=0.0 if on_gpu else _process_mib(profile.slots, model.shape.vocabulary),
    )


def _process_mib(slots: int, vocabulary: int) -> float:
    return PROCESS_MIB + slots * SLOT_MIB + vocabulary * TOKEN_BYTES / MIB


def _layers_on_card(model: Model, block: LlamaCpp) -> frozenset[int]:
    """The last `n_gpu_layers`; what is counted beyond the layers is the head."""
    layers = model.shape.layers
    asked = block.n_gpu_layers
    count = layers if asked in (None, -1) or asked > layers else asked
    return frozenset(range(layers - count, layers))


def _llama_weights_mib(model: Model, block: LlamaCpp, on_card: frozenset[int], *, on_gpu: bool) -> float:
    stored = model.stored
    if not on_gpu:
        return stored.mib
    kept = [t for t in stored.tensors if t.layer in on_card and not _expert_on_cpu(t, block)]
    # The head goes to the card with the last layer; where it is the embeddings, as a copy of them.
    head = stored.part_mib("head") or stored.part_mib("embedding")
    ends = (head + stored.part_mib("other")) if on_card else 0.0
    return sum(t.size_bytes for t in kept) / MIB + ends


def _expert_on_cpu(tensor: StoredTensor, block: LlamaCpp) -> bool:
    if "_exps" not in tensor.name or tensor.layer is None:
        return False
    return block.cpu_moe or tensor.layer < (block.n_cpu_moe or 0)


def _cache_mib(shape: ModelShape, block: LlamaCpp, context: int, batch: int) -> float:
    """Keys and values of one slot's whole context."""
    keys, values = shape.kv_values(context, ahead=batch, step=CONTEXT_STEP)
    key_bytes = CACHE_BYTES[block.cache_type_k or "f16"]
    return (keys * key_bytes + values * CACHE_BYTES[block.cache_type_v or "f16"]) / MIB


def checkpoints_mib(shape: ModelShape, block: LlamaCpp) -> float:
    """What one slot may keep aside, in main memory, to go back to: its windows as they were."""
    windows = replace(shape, kv=tuple(group for group in shape.kv if group.window is not None))
    longest = max((group.window or 0 for group in windows.kv), default=0)
    return CHECKPOINTS * _cache_mib(windows, block, longest, 0)


def _compute_mib(shape: ModelShape, block: LlamaCpp, batch: int, context: int, *, on_gpu: bool) -> float:
    """Of one physical batch: who may look at whom, and the largest of what follows each other.

    Held to what 0.7.0 prints of its buffers on a CPU. On cards, builds of 2024 and 2025 print as much as
    the logits of every token of the batch take; 0.7.0 has not been seen there yet.
    """
    heads = max(1, shape.hidden // 64)
    layer = shape.intermediate + 5 * shape.hidden
    seen = sum({group.kept(context, batch, CONTEXT_STEP) for group in shape.kv})  # a mask for each window
    if block.flash_attn == "off":
        mask, largest = 4 * seen, heads * context + layer
    else:
        mask, largest = 6 * seen, layer  # as float32, and as the float16 that the kernel reads
    if on_gpu:
        largest = max(largest, shape.vocabulary + shape.hidden)
    return batch * (mask + 4 * largest) / MIB
