"""Which dtype and which kernel, by what the device can do. Pure: values in, a reasoned choice out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.errors import ConfigError

# The oldest card that the locked torch wheels hold code for, and the oldest with bfloat16.
OLDEST, BFLOAT16_FROM = (7, 5), (8, 0)


@dataclass(frozen=True, slots=True)
class Device:
    """`kind` is cpu or cuda; `capability` is (major, minor) on CUDA; `nvcc`: kernels can be built."""

    kind: str
    capability: tuple[int, int] = (0, 0)
    nvcc: bool = False


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint says of itself. `method` is its own quantisation, None for none."""

    dtype: str = "float16"
    method: str | None = None
    bits: int = 4
    group_size: int = 128
    sym: bool = True


@dataclass(frozen=True, slots=True)
class Precision:
    """What to load with; each choice with its reason.

    `gptq_kernel` is gptqmodel's backend name. `graphs`: whether a decode step may be captured as a
    CUDA graph.
    """

    dtype: str
    dtype_reason: str
    weights: str
    weights_reason: str
    gptq_kernel: str | None = None
    graphs: bool = True


def checkpoint(config: Mapping[str, Any]) -> Checkpoint:
    """The facts of a model's `config.json` that decide how it is loaded."""
    quantized = config.get("quantization_config") or {}
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    return Checkpoint(
        dtype=dtype,
        method=quantized.get("quant_method"),
        bits=int(quantized.get("bits", 4)),
        group_size=int(quantized.get("group_size", 128)),
        sym=bool(quantized.get("sym", True)),
    )


def chosen(device: Device, config: Mapping[str, Any], quantization: str) -> Precision:
    """What the model of this `config.json` is served with; `gptq` is quantised first where it is not yet.

    Raises what `choose` raises.
    """
    stored = checkpoint(config)
    if quantization == "gptq" and stored.method is None:
        stored = Checkpoint(dtype="float16", method="gptq")
    return choose(device, stored, quantization)


def choose(device: Device, stored: Checkpoint, quantization: str) -> Precision:
    """`quantization` is what was asked for: auto, none, 8bit or 4bit.

    Raises ConfigError where that, the checkpoint and the device do not go together.
    """
    if device.kind == "cuda" and device.capability < OLDEST:
        raise ConfigError(
            f"This card has compute capability {_dotted(device.capability)}; torch's wheels begin at "
            f"{_dotted(OLDEST)}. Set DEVICE=cpu, or serve a GGUF file with the llama.cpp engine."
        )
    if stored.method not in (None, "gptq"):
        raise ConfigError(f"The checkpoint is quantised with {stored.method!r}; gptq or none can be loaded.")
    if quantization in ("8bit", "4bit"):
        return _bitsandbytes(device, stored, quantization)
    dtype, reason = _dtype(device, stored)
    if stored.method == "gptq":
        kernel, name, why = _gptq_kernel(device, stored)
        return Precision(dtype, reason, f"gptq, {name} kernel", why, kernel)
    return Precision(dtype, reason, "as stored", "the checkpoint is not quantised")


def _gptq_kernel(device: Device, stored: Checkpoint) -> tuple[str, str, str]:
    """(backend name, name for people, reason). Machete is never taken: it downloads sources."""
    if device.kind == "cpu":
        if stored.bits != 4:
            raise ConfigError(
                f"The checkpoint has {stored.bits} bits; on a CPU GPTQ is served with 4. "
                "Take a 4-bit checkpoint or a card."
            )
        return (
            "gptq_torch_fused",
            "TorchFused",
            "the one CPU kernel that takes fp32, and the same in any batch",
        )
    marlin_takes = stored.sym and stored.bits in (4, 8) and stored.group_size in (-1, 32, 64, 128)
    if marlin_takes and device.nvcc:
        return "gptq_marlin", "Marlin", "the fastest; built with nvcc at first use"
    why = (
        "Marlin is built with nvcc, which is not on PATH"
        if marlin_takes
        else "Marlin does not take this format"
    )
    return "gptq_triton", "Triton", why


def _bitsandbytes(device: Device, stored: Checkpoint, quantization: str) -> Precision:
    if device.kind != "cuda":
        raise ConfigError(
            f"load_in_{quantization} uses bitsandbytes, which needs CUDA; this device is "
            f"{device.kind}. Leave the option out, or use a GPTQ checkpoint."
        )
    if stored.method is not None:
        raise ConfigError(
            f"The checkpoint is already quantised with {stored.method}; leave load_in_{quantization} out."
        )
    dtype, reason = _dtype(device, stored)
    # bitsandbytes' 8-bit product looks for outliers with a host synchronisation, which no graph takes.
    graphs = quantization == "4bit"
    return Precision(dtype, reason, f"bitsandbytes {quantization}", "asked for", graphs=graphs)


def _dtype(device: Device, stored: Checkpoint) -> tuple[str, str]:
    if device.kind == "cpu":
        return "float32", "bfloat16 is emulated on most CPUs: 2.6 times slower in a batch of 8"
    if device.capability < BFLOAT16_FROM:
        return "float16", f"bfloat16 needs compute capability {_dotted(BFLOAT16_FROM)}"
    if stored.method == "gptq":
        return "float16", "what the GPTQ kernels are built for"
    if stored.dtype == "bfloat16":
        return "bfloat16", "as stored"
    return "float16", "half of float32's memory, on tensor cores"


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
