"""What is loaded how, by what the device can do."""

from __future__ import annotations

import pytest

from sidecar.errors import ConfigError
from sidecar.worker.precision import Device, choose

CPU, PASCAL, TURING, AMPERE = (
    Device("cpu"),
    Device("cuda", (6, 1)),
    Device("cuda", (7, 5)),
    Device("cuda", (8, 6)),
)


@pytest.mark.parametrize(
    ("device", "method", "stored", "asked", "dtype", "kernel"),
    [
        (CPU, "gptq", "float16", "auto", "float32", "gptq_torch_fused"),
        (CPU, None, "bfloat16", "auto", "float32", None),
        (PASCAL, "gptq", "float16", "auto", "float16", "gptq_triton"),
        (TURING, "gptq", "bfloat16", "auto", "float16", "gptq_marlin"),
        (TURING, None, "bfloat16", "auto", "float16", None),
        (AMPERE, "gptq", "bfloat16", "auto", "float16", "gptq_marlin"),
        (AMPERE, None, "bfloat16", "none", "bfloat16", None),
        (AMPERE, None, "float32", "auto", "float16", None),
        (AMPERE, None, "bfloat16", "8bit", "bfloat16", None),
        (AMPERE, None, "float16", "4bit", "float16", None),
    ],
)
def test_table(
    device: Device, method: str | None, stored: str, asked: str, dtype: str, kernel: str | None
) -> None:
    chosen = choose(device, method, stored, asked)
    assert (chosen.dtype, chosen.gptq_kernel) == (dtype, kernel)
    assert chosen.dtype_reason
    assert chosen.weights_reason


@pytest.mark.parametrize(
    ("device", "method", "asked", "words"),
    [
        (CPU, None, "8bit", "load_in_8bit uses bitsandbytes, which needs CUDA; this device is cpu"),
        (CPU, None, "4bit", "load_in_4bit"),
        (AMPERE, "gptq", "4bit", "already quantised with gptq"),
        (CPU, "awq", "auto", "'awq'; gptq or none"),
    ],
)
def test_refusals_name_the_reason(device: Device, method: str | None, asked: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        choose(device, method, "float16", asked)
    assert words in refused.value.message
