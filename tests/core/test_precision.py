"""What is loaded how, by what the device can do."""

from __future__ import annotations

import pytest

from sidecar.errors import ConfigError
from sidecar.worker.precision import Checkpoint, Device, choose

CPU, PASCAL = Device("cpu"), Device("cuda", (6, 1), nvcc=True)
TURING, AMPERE, BARE = Device("cuda", (7, 5), True), Device("cuda", (8, 6), True), Device("cuda", (8, 6))
GPTQ = Checkpoint("float16", "gptq")


@pytest.mark.parametrize(
    ("device", "stored", "asked", "dtype", "kernel"),
    [
        (CPU, GPTQ, "auto", "float32", "gptq_torch_fused"),
        (CPU, Checkpoint("bfloat16"), "auto", "float32", None),
        (CPU, Checkpoint("float32"), "auto", "float32", None),
        (TURING, GPTQ, "auto", "float16", "gptq_marlin"),
        (TURING, Checkpoint("bfloat16"), "auto", "float16", None),
        (AMPERE, GPTQ, "auto", "float16", "gptq_marlin"),
        (AMPERE, Checkpoint("float16", "gptq", sym=False), "auto", "float16", "gptq_triton"),
        (AMPERE, Checkpoint("float16", "gptq", bits=2), "auto", "float16", "gptq_triton"),
        (AMPERE, Checkpoint("float16", "gptq", group_size=256), "auto", "float16", "gptq_triton"),
        (BARE, GPTQ, "auto", "float16", "gptq_triton"),
        (AMPERE, Checkpoint("bfloat16"), "none", "bfloat16", None),
        (AMPERE, Checkpoint("float32"), "auto", "float16", None),
        (AMPERE, Checkpoint("bfloat16"), "8bit", "bfloat16", None),
        (AMPERE, Checkpoint("float16"), "4bit", "float16", None),
        (AMPERE, Checkpoint("float32"), "4bit", "float16", None),
    ],
)
def test_table(device: Device, stored: Checkpoint, asked: str, dtype: str, kernel: str | None) -> None:
    chosen = choose(device, stored, asked)
    assert (chosen.dtype, chosen.gptq_kernel) == (dtype, kernel)
    assert chosen.dtype_reason
    assert chosen.weights_reason


@pytest.mark.parametrize(
    ("device", "stored", "asked", "words"),
    [
        (CPU, Checkpoint(), "8bit", "load_in_8bit uses bitsandbytes, which needs CUDA; this device is cpu"),
        (CPU, Checkpoint(), "4bit", "load_in_4bit"),
        (CPU, Checkpoint(method="gptq", bits=8), "auto", "The checkpoint has 8 bits"),
        (AMPERE, GPTQ, "4bit", "already quantised with gptq"),
        (CPU, Checkpoint(method="awq"), "auto", "'awq'; gptq or none"),
        (PASCAL, GPTQ, "auto", "compute capability 6.1; torch's wheels begin at 7.5"),
    ],
)
def test_refusals_name_the_reason(device: Device, stored: Checkpoint, asked: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        choose(device, stored, asked)
    assert words in refused.value.message


def test_an_8_bit_step_is_never_captured() -> None:
    assert not choose(AMPERE, Checkpoint(), "8bit").graphs
    assert choose(AMPERE, Checkpoint(), "4bit").graphs
