"""What serving a profile takes, from the headers of its files: nothing is loaded. Pure.

Two engines, two ways: the transformers engine shares one pool of pages among its requests, and
llama-server sets a whole context aside for each of its slots.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.budget import CUDA_CONTEXT_MIB, MIB, Demand, paged, workspace_mib
from sidecar.model_shape import ModelShape
from sidecar.profiles import LlamaCpp, Profile
from sidecar.stored import BITS, Stored, StoredTensor
from sidecar.worker.gptq_plan import BITS as GPTQ_BITS
from sidecar.worker.gptq_plan import bytes_per_weight
from sidecar.worker.precision import Precision

# Bytes of one number in llama.cpp's cache: blocks of 32 with a scale, or with a scale and a minimum.
CACHE_BYTES = {
    "f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32, "iq4_nl": 18 / 32,
    "q4_1": 20 / 32, "q4_0": 18 / 32,
}  # fmt: skip
# llama-server's own sizes where a profile says none: tokens of one physical batch, and the step in
# which contexts are rounded up (ggml-org/llama.cpp, llama-context.cpp).
UBATCH_TOKENS, CONTEXT_STEP = 512, 256
# Rows of logits that a step of our worker may have for each request (`n`).
CHOICES = 4
PAGE_TOKENS = {"cuda": 256, "cpu": 16}
# bitsandbytes (0.49): a byte for each number; or half of one, and a float32 for each 64.
EIGHT_BIT, FOUR_BIT = 1.0, 0.5 + 4 / 64
FLOATS = ("F64", "F32", "F16", "BF16")
GPTQ_GROUP = 128


@dataclass(frozen=True, slots=True)
class Model:
    """A model as its files describe it. `mmproj_mib` is the image encoder's file."""

    stored: Stored
    shape: ModelShape
    mmproj_mib: float = 0.0


def of_llama_server(profile: Profile, model: Model, *, on_gpu: bool) -> Demand:
    """For llama-server: what it takes of the cards, or of main memory where it uses none."""
    block = profile.llamacpp
    assert block is not None
    on_card = _layers_on_card(model, block) if on_gpu else frozenset(range(model.shape.layers))
    share = len(on_card) / max(model.shape.layers, 1)
    batch = min(block.ubatch_size or profile.gpu.max_batch_tokens or UBATCH_TOKENS, profile.context)
    rounded = -(-profile.context // CONTEXT_STEP) * CONTEXT_STEP
    return Demand(
        weights_mib=_llama_weights_mib(model, block, on_card, on_gpu=on_gpu) + model.mmproj_mib,
        workspace_mib=_compute_mib(model.shape, block, batch, rounded, on_gpu=on_gpu),
        context_mib=CUDA_CONTEXT_MIB * max(profile.gpu.cards, 1) if on_gpu else 0.0,
        page_mib=_cache_mib(model.shape, block, rounded, batch) * share,
        page_tokens=profile.context,
        context=profile.context,
        needed_pages=profile.slots,
        wanted_pages=profile.slots,
    )


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


def of_worker(profile: Profile, model: Model, chosen: Precision, *, device: str) -> Demand:
    """For the transformers engine, `device` being cuda or cpu."""
    block, shape = profile.transformers, model.shape
    assert block is not None
    number = BITS[_named(chosen.dtype)] // 8
    keys, values = shape.kv_values(1)
    return paged(
        weights_mib=_loaded_bytes(model.stored, block.quantization, number) / MIB,
        workspace_mib=workspace_mib(
            profile.batch_tokens, shape.hidden, shape.intermediate, profile.slots * CHOICES * shape.vocabulary
        ),
        on_cuda=device == "cuda",
        bytes_per_token=(keys + values) * number,
        page_tokens=block.page_tokens or PAGE_TOKENS[device],
        context=profile.context,
        wanted_tokens=block.kv_tokens or profile.slots * profile.context,
    )


def _loaded_bytes(stored: Stored, quantization: str, number: int) -> float:
    """What the files' numbers take once they are loaded, in numbers of `number` bytes."""
    is_quantised = any(t.name.endswith(".qweight") for t in stored.tensors)
    each = {
        "8bit": EIGHT_BIT,
        "4bit": FOUR_BIT,
        "gptq": bytes_per_weight(GPTQ_BITS[0], GPTQ_GROUP, number),
    }.get(quantization if not is_quantised else "", float(number))
    return sum(_loaded_tensor(tensor, number, each) for tensor in stored.tensors)


def _loaded_tensor(tensor: StoredTensor, number: int, matrix_number: float) -> float:
    if tensor.dtype not in FLOATS:
        return tensor.size_bytes
    return tensor.numbers * (matrix_number if tensor.part == "layers" and tensor.matrix else number)


def _named(dtype: str) -> str:
    return {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype]
