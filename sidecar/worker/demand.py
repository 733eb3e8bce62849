"""What the transformers engine takes, from the headers of a model's files: nothing is loaded. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.budget import MIB, Demand, paged, workspace_mib
from sidecar.stored import BITS, Model, Stored, StoredTensor
from sidecar.worker.gptq_plan import BITS as GPTQ_BITS
from sidecar.worker.gptq_plan import bytes_per_weight
from sidecar.worker.precision import Precision

# Rows of logits that a step may have for each request (`n`).
MAX_CHOICES = 4
PAGE_TOKENS = {"cuda": 256, "cpu": 16}
# bitsandbytes: a byte for each number; or half of one, and a float32 for each 64.
EIGHT_BIT, FOUR_BIT = 1.0, 0.5 + 4 / 64
GPTQ_GROUP = 128
# Resident before the weights are read: Python, torch with its CUDA libraries, transformers; where GPTQ is
# served, gptqmodel and what it brings (measured: torch 2.15 with CUDA 13.2, gptqmodel 7.7).
PROCESS_MIB, GPTQ_MIB = 800.0, 210.0
# A vocabulary as the tokenizer and llguidance hold it: 1.0 to 1.8 (measured, 8,000 to 256,000 tokens).
TOKEN_KIB = 1.5
# What steps leave behind: the kernels that oneDNN writes (`sidecar.worker.packed`), code that is read
# (measured: 10 with GPTQ, 64 to 80 without).
FIRST_STEPS_MIB = 96.0
# One answer's grammar at its limits: 50,000 states of the lexer (`sidecar.worker.constraint`).
GRAMMAR_MIB = 25.0
FLOATS = ("F64", "F32", "F16", "BF16")
NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a model is to be served; None is the engine's own choice."""

    context: int
    slots: int
    batch_tokens: int
    quantization: str = "auto"
    kv_tokens: int | None = None
    page_tokens: int | None = None


def worker_demand(
    model: Model, wanted: Wanted, chosen: Precision, device: str, resident_mib: float = PROCESS_MIB
) -> Demand:
    """`device` is cuda or cpu; a model that `wanted` quantises counts as quantised.

    `resident_mib` is what the process holds before the weights are read.
    """
    shape, number = model.shape, BITS[NAMES[chosen.dtype]] // 8
    rows = wanted.slots * MAX_CHOICES
    return paged(
        weights_mib=_loaded_bytes(model.stored, wanted.quantization, number) / MIB,
        workspace_mib=workspace_mib(
            wanted.batch_tokens, shape.hidden, shape.intermediate, rows * shape.vocabulary
        ),
        on_cuda=device == "cuda",
        # Layers with a window keep their whole context here too.
        bytes_per_token=sum(shape.kv_values(1)) * number,
        page_tokens=wanted.page_tokens or PAGE_TOKENS[device],
        context=wanted.context,
        wanted_tokens=wanted.kv_tokens or wanted.slots * wanted.context,
        process_mib=resident_mib + _libraries_mib(shape.vocabulary, chosen) + serving_mib(wanted.slots),
    )


def serving_mib(slots: int) -> float:
    """What a process takes once it serves, beside the steps' own workspace."""
    return FIRST_STEPS_MIB + slots * GRAMMAR_MIB


def _libraries_mib(vocabulary: int, chosen: Precision) -> float:
    return vocabulary * TOKEN_KIB / 1024 + (0.0 if chosen.gptq_kernel is None else GPTQ_MIB)


def _loaded_bytes(stored: Stored, quantization: str, number: int) -> float:
    """What the files' numbers take once they are loaded, in numbers of `number` bytes."""
    each = float(number)
    if not any(tensor.name.endswith(".qweight") for tensor in stored.tensors):
        gptq = bytes_per_weight(GPTQ_BITS[0], GPTQ_GROUP, number)
        each = {"8bit": EIGHT_BIT, "4bit": FOUR_BIT, "gptq": gptq}.get(quantization, each)
    return sum(_loaded_tensor(tensor, number, each) for tensor in stored.tensors)


def _loaded_tensor(tensor: StoredTensor, number: int, of_a_matrix: float) -> float:
    if tensor.dtype not in FLOATS:
        return tensor.size_bytes
    return tensor.numbers * (of_a_matrix if tensor.part == "layers" and tensor.matrix else number)
