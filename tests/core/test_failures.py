"""What an exception means, by type and by words."""

from __future__ import annotations

import pytest

from sidecar.worker.failures import Failure, asked_mib, failure


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


class AcceleratorError(RuntimeError):
    """Named like torch's."""


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), Failure.MEMORY),
        (MemoryError(), Failure.MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"), Failure.MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), Failure.MEMORY),
        (RuntimeError("std::bad_alloc"), Failure.MEMORY),
        (RuntimeError("could not create a primitive"), Failure.MEMORY),
        (RuntimeError("could not create a primitive descriptor for the matmul primitive"), Failure.FAULT),
        (RuntimeError("CUDA error: device-side assert triggered"), Failure.STICKY),
        (AcceleratorError("an illegal memory access was encountered"), Failure.STICKY),
        (RuntimeError("Triton Error [CUDA]: illegal address"), Failure.STICKY),
        (RuntimeError("shape '[1, -1, 512]' is invalid"), Failure.FAULT),
        (ValueError("CUDA is mentioned, and nothing is broken"), Failure.FAULT),
        (KeyError("x"), Failure.FAULT),
    ],
)
def test_table(error: Exception, meaning: Failure) -> None:
    assert failure(error) is meaning


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has", 2048.0),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 16777216 bytes. Error", 16.0),
        ("std::bad_alloc", 0.0),
    ],
)
def test_what_was_asked_for(text: str, mib: float) -> None:
    assert asked_mib(RuntimeError(text)) == mib
