"""What may be quantised, what that takes, and how long it goes on. Pure: values in, values out.

The sizes follow from how gptqmodel works: one layer on the device in its own precision, the products
of the inputs of its widest matrix in float32 (the Hessian, its factors and what they are computed
from), a few float32 copies of that matrix, and the activations of one batch of calibration rows.
Main memory keeps the embeddings and the layer inputs of all rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.budget import CUDA_CONTEXT_MIB, FILL, MIB, workspace_mib
from sidecar.errors import ConfigError, NoMemoryNow
from sidecar.worker.architectures import check_architecture

BITS, GROUP_SIZES = (4, 8), (32, 64, 128)
DTYPES = {"float32": 4, "float16": 2, "bfloat16": 2}
ROW_TOKENS, BATCH_ROWS = 512, 8
# GPTQ looks at the products of a matrix's inputs: eight tokens for each input tell them well enough.
TOKENS_PER_INPUT, LEAST_ROWS, MOST_ROWS = 8, 32, 256
# Python with torch, transformers and gptqmodel; on CUDA its libraries too.
PROCESS_MIB, CUDA_PROCESS_MIB = 1300.0, 3000.0
# Square and rectangular float32 copies that one matrix's quantisation holds at once.
HESSIAN_COPIES, WEIGHT_COPIES = 4, 4


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model's matrices, and what its numbers are stored as."""

    dtype: str
    layers: int
    hidden: int
    intermediate: int
    queries: int
    keys: int
    vocabulary: int
    tied: bool

    @property
    def layer_weights(self) -> int:
        """Numbers in the matrices of one layer."""
        attention = 2 * self.hidden * (self.queries + self.keys)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def embedding_weights(self) -> int:
        """Numbers that are not quantised: the embeddings, and the head where it is not the same."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def widest(self) -> int:
        """Inputs of the widest matrix."""
        return max(self.hidden, self.intermediate, self.queries)

    @property
    def rows(self) -> int:
        """Calibration rows that it takes."""
        return min(max(-(-self.widest * TOKENS_PER_INPUT // ROW_TOKENS), LEAST_ROWS), MOST_ROWS)


@dataclass(frozen=True, slots=True)
class Needs:
    """What quantising takes: the result, all of the disk meanwhile, main memory, the card (0: none)."""

    result_mib: float
    disk_mib: float
    memory_mib: float
    device_mib: float


def shape(config: Mapping[str, Any], title: str, group_size: int) -> Shape:
    """The shape of the model that `config.json` describes, if it can be quantised.

    Raises ConfigError, with `title` for a name, for what is quantised already, is of an architecture
    that is not served, is not stored in 16 or 32 bits, or has sizes that the groups do not divide.
    """
    if method := (config.get("quantization_config") or {}).get("quant_method"):
        raise ConfigError(f"{title} is quantised already ({method}); give the model it was made from.")
    check_architecture(title, config)
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    if dtype not in DTYPES:
        raise ConfigError(f"{title} is stored as {dtype}; only {', '.join(DTYPES)} can be quantised.")
    try:
        found = _shape(config, dtype)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"{title}: its config.json gives no usable sizes ({error}).") from None
    sizes = (found.hidden, found.intermediate, found.queries)
    for inputs in sizes:
        if inputs % group_size:
            accepted = [str(size) for size in GROUP_SIZES if not any(inputs % size for inputs in sizes)]
            raise ConfigError(
                f"{title} has matrices of {inputs} inputs, which groups of {group_size} do not divide; "
                f"accepted for it: {', '.join(accepted) or 'none, it can not be quantised here'}."
            )
    return found


def _shape(config: Mapping[str, Any], dtype: str) -> Shape:
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    head_dim = int(config.get("head_dim") or hidden // heads)
    return Shape(
        dtype=dtype,
        layers=int(config["num_hidden_layers"]),
        hidden=hidden,
        intermediate=int(config["intermediate_size"]),
        queries=heads * head_dim,
        keys=int(config.get("num_key_value_heads") or heads) * head_dim,
        vocabulary=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def needs(shape: Shape, bits: int, group_size: int, *, on_cuda: bool) -> Needs:
    """Disk, main memory and device memory of quantising a model of that shape."""
    number = DTYPES[shape.dtype]
    quantised = shape.layers * shape.layer_weights * bytes_per_weight(bits, group_size, number)
    embeddings = shape.embedding_weights * number
    square = HESSIAN_COPIES * shape.widest**2 * 4
    copies = WEIGHT_COPIES * shape.hidden * shape.intermediate * 4
    batch_mib = workspace_mib(BATCH_ROWS * ROW_TOKENS, shape.hidden, shape.intermediate, 0)
    work_mib = (shape.layer_weights * number + square + copies) / MIB + batch_mib
    # Layer inputs of all rows, and the outputs that become the next layer's inputs.
    kept = embeddings + 2 * shape.rows * ROW_TOKENS * shape.hidden * number
    process_mib = CUDA_PROCESS_MIB if on_cuda else PROCESS_MIB
    result_mib = (quantised + embeddings) / MIB
    return Needs(
        result_mib=result_mib,
        disk_mib=2 * result_mib,  # each layer is put down as it is done, then all are written as one
        memory_mib=process_mib + kept / MIB + (0.0 if on_cuda else work_mib),
        device_mib=CUDA_CONTEXT_MIB + work_mib if on_cuda else 0.0,
    )


def bytes_per_weight(bits: int, group_size: int, number: int) -> float:
    """The weight itself, and its share of the group's scale, zero point and of the group index."""
    return bits / 8 + (number + bits / 8) / group_size + 0.01


def check_room(
    title: str,
    needs: Needs,
    *,
    download_mib: float,
    free_disk_mib: float,
    free_memory_mib: float,
    budget_mib: float | None,
) -> None:
    """Say no before anything is fetched or computed, with the figures.

    `budget_mib` counts where a card is used. Raises ConfigError for disk and budget, which only the
    operator can change, and NoMemoryNow for main memory, which may be free later.
    """
    disk_mib = download_mib + needs.disk_mib
    if disk_mib > free_disk_mib:
        fetched = f"{download_mib:.0f} to download and " if download_mib else ""
        raise ConfigError(
            f"Quantising {title} takes {disk_mib:.0f} MiB of disk ({fetched}{needs.disk_mib:.0f} for the "
            f"result and its making); {free_disk_mib:.0f} are free. Free some, or set HF_HOME (--out) "
            "to a larger disk."
        )
    if needs.device_mib and budget_mib is not None and needs.device_mib > budget_mib * FILL:
        raise ConfigError(
            f"Quantising {title} takes about {needs.device_mib:.0f} MiB of the card, more than "
            f"{budget_mib * FILL:.0f} ({FILL:.0%} of the budget of {budget_mib:.0f}). Raise VRAM_BUDGET, "
            "set DEVICE=cpu (slow), or take a GPTQ checkpoint (MODEL_ID)."
        )
    if needs.memory_mib > free_memory_mib:
        raise NoMemoryNow(
            f"Quantising {title} takes about {needs.memory_mib:.0f} MiB of main memory; "
            f"{free_memory_mib:.0f} are free. Free some, or take a GPTQ checkpoint (MODEL_ID)."
        )


def no_leave(title: str) -> ConfigError:
    """AUTO_QUANTIZE=0: what can be done instead, as commands."""
    model = title.partition("@")[0]
    return ConfigError(
        f"{title} is not quantised, and AUTO_QUANTIZE=0 says not to do that at a start. Instead: "
        "`MODEL_ID=owner/some-gptq-model python server.py`, or "
        f"`llm-sidecar quantize {model} --out DIR` and then `MODEL_PATH=DIR python server.py`, or "
        "`LLM_PROFILE_NAME=hermes-3-8b-q4_k_m python server.py`."
    )


def kept_name(model: str, revision: str, bits: int, group_size: int) -> str:
    """The folder in which the result for a model of the hub, or a folder of that name, is kept."""
    return f"{model.replace('/', '--')}@{revision.replace('/', '--')}-{bits}bit-{group_size}g"


def time_left(done: float, elapsed_s: float) -> str:
    """`, 12 min left`, when as much time is taken for the rest as was for the share that is done."""
    if not 0 < done < 1:
        return ""
    left_s = elapsed_s * (1 - done) / done
    if left_s < 90:
        return f", {left_s:.0f} s left"
    minutes = round(left_s / 60)
    return f", {minutes} min left" if minutes < 120 else f", {minutes / 60:.1f} h left"
