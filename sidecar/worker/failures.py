"""What an exception of a step means for everybody else. Pure: its types and its words decide.

torch has a type for running out of memory, but its libraries do not: cuBLAS, the CPU allocator and
Triton say it, or worse things, in a RuntimeError's text.
"""

from __future__ import annotations

import re
from enum import Enum

# The words are those of the libraries named; each was read in their sources.
_MEMORY = (
    "can't allocate memory",  # torch, DefaultCPUAllocator
    "CUBLAS_STATUS_ALLOC_FAILED",  # torch, cuBLAS handle without room for its workspace
    "CUDA out of memory",
    "std::bad_alloc",  # C++, which torch passes on as a RuntimeError
    "could not create a memory",  # oneDNN, whose memory is its own
)
# oneDNN, when it can not write a kernel; what it has none for, it says in more words.
_KERNEL = "could not create a primitive"
_ASKED = re.compile(r"[Tt]ried to allocate (?P<count>[\d.]+) (?P<unit>bytes|KiB|MiB|GiB)")
_MIB = {"bytes": 2.0**-20, "KiB": 2.0**-10, "MiB": 1.0, "GiB": 2.0**10}
_STICKY = (
    "CUDA error:",  # torch, c10_cuda_check_implementation: the context is unusable from here on
    "Triton Error [CUDA]",
    "CUBLAS_STATUS_EXECUTION_FAILED",
)


class Failure(Enum):
    """Whom it costs: one request, the requests of the step, or the process."""

    MEMORY = "memory"
    FAULT = "fault"
    STICKY = "sticky"


def failure(error: BaseException) -> Failure:
    """Memory is looked for first: cuBLAS reports it as a "CUDA error" too."""
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    if names & {"OutOfMemoryError", "MemoryError"} or any(words in text for words in _MEMORY):
        return Failure.MEMORY
    if text.strip() == _KERNEL:
        return Failure.MEMORY
    if "AcceleratorError" in names or any(words in text for words in _STICKY):
        return Failure.STICKY
    return Failure.FAULT


def asked_mib(error: BaseException) -> float:
    """What was asked for when memory ran out, as the allocators of torch say it; 0 where nobody does."""
    found = _ASKED.search(str(error))
    return 0.0 if found is None else float(found["count"]) * _MIB[found["unit"]]
