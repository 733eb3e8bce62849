"""What an exception means, by type and by words."""

from __future__ import annotations

import pytest

from sidecar.worker.failures import Failure, failure


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
