"""Which dtype and which kernel, by what the device can do. Pure: values in, a reasoned choice out."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Device:
    """`kind` is cpu or cuda; `capability` is (major, minor) on CUDA."""

    kind: str
    capability: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Precision:
    """What to load with; each choice with its reason. `gptq_kernel` is gptqmodel's backend name."""

    dtype: str
    dtype_reason: str
    weights: str
    weights_reason: str
    gptq_kernel: str | None = None
    kept: float = 1.0  # share of the stored size that the loaded weights take


def choose(device: Device, method: str | None, checkpoint_dtype: str, quantization: str) -> Precision:
    """`method` is the checkpoint's own quantisation, `quantization` what was asked for.

    Raises ConfigError where the two do not go together, or not with the device.
    """
    if method not in (None, "gptq"):
        raise ConfigError(f"The checkpoint is quantised with {method!r}; gptq or none can be loaded.")
    if quantization in ("8bit", "4bit"):
        return _bitsandbytes(device, method, checkpoint_dtype, quantization)
    dtype, reason = _dtype(device, method, checkpoint_dtype)
    if method is None:
        return Precision(dtype, reason, "as stored", "the checkpoint is not quantised")
    if device.kind == "cpu":
        return Precision(
            dtype, reason, "gptq, TorchFused kernel",
            "the one CPU kernel that takes fp32, and the same in any batch", "gptq_torch_fused",
        )  # fmt: skip
    if device.capability >= (7, 5):
        return Precision(
            dtype, reason, "gptq, Marlin kernel",
            "fastest from compute capability 7.5; Machete would download sources", "gptq_marlin",
        )  # fmt: skip
    return Precision(
        dtype, reason, "gptq, Triton kernel", "Marlin needs compute capability 7.5", "gptq_triton"
    )


def _bitsandbytes(device: Device, method: str | None, stored: str, quantization: str) -> Precision:
    if device.kind != "cuda":
        raise ConfigError(
            f"load_in_{quantization} uses bitsandbytes, which needs CUDA; this device is "
            f"{device.kind}. Leave the option out, or use a GPTQ checkpoint."
        )
    if method is not None:
        raise ConfigError(
            f"The checkpoint is already quantised with {method}; leave load_in_{quantization} out."
        )
    dtype, reason = _dtype(device, None, stored)
    kept = (0.5 if quantization == "8bit" else 0.25) * (0.5 if stored == "float32" else 1.0)
    return Precision(dtype, reason, f"bitsandbytes {quantization}", "asked for", kept=kept)


def _dtype(device: Device, method: str | None, stored: str) -> tuple[str, str]:
    if device.kind == "cpu":
        return "float32", "bfloat16 is emulated on most CPUs: 2.6 times slower in a batch of 8"
    if device.capability < (8, 0):
        return "float16", "bfloat16 needs compute capability 8.0"
    if method == "gptq":
        return "float16", "what the GPTQ kernels are built for"
    if stored == "bfloat16":
        return "bfloat16", "as stored"
    return "float16", "half of float32's memory, on tensor cores"
