"""What a child's last lines mean, for people. Pure.

A match adds a sentence about what to do; it never decides what happens next.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_NOISE = re.compile(r"^[\s.]*$|^\x1b|^(srv|slot|main|system_info|common_init)\b.*(clean|exiting)")

# The first pattern that is found in any line, from the last line upwards, gives the sentence.
_TABLE = (
    (
        r"CUDA driver version is insufficient|forward compatibility was attempted",
        "the NVIDIA driver is too old for this build's CUDA: update it, or take a build with an older CUDA",
    ),
    (
        r"unknown model architecture",
        "this build of llama.cpp is older than the model: take a newer build, or another model",
    ),
    (
        r"missing tensor|wrong number of tensors|has wrong shape|tensor .* not found",
        "the GGUF is damaged, incomplete or of another llama.cpp version: delete it and download it again, "
        "and compare the file's name with the profile's",
    ),
    (
        r"invalid magic|bad magic|not a GGUF|failed to read magic",
        "the file is no GGUF: delete it and download it again",
    ),
    (
        r"not within the file bounds|file is truncated|unexpectedly reached end|corrupted or incomplete",
        "the GGUF is cut short: delete it and download it again",
    ),
    (
        r"out of memory|failed to allocate|cudaMalloc failed|unable to allocate|bad_alloc",
        "there is not enough memory: lower ctx_size, parallel or n_gpu_layers, take a smaller "
        "quantisation, or free the card",
    ),
    (
        r"couldn't bind|address already in use|failed to bind",
        "its port was taken in the same moment; another one is tried",
    ),
    (
        r"(invalid|unknown|unrecognized) argument|error while handling argument|expected value for argument",
        "this build does not take one of the flags: see extra_args of the profile, and llm-sidecar plan",
    ),
    (
        r"no usable GPU|no CUDA-capable device|ggml_cuda_init: failed",
        "no card can be used: see nvidia-smi, and the container's GPU reservation",
    ),
    (
        r"error while loading shared libraries",
        "the program lacks a library: install llama.cpp again",
    ),
    (
        r"mmproj|clip_model_loader|clip_init",
        "the projector (mmproj) can not be used with this model: both must come from one repository",
    ),
)
# The first that is found in any line, from the last line upwards, gives the sentence.
MEANINGS = tuple((re.compile(pattern, re.IGNORECASE), meaning) for pattern, meaning in _TABLE)


def last_words(lines: Sequence[str]) -> str:
    """The line that says why the child ended, and what to do; the last line where none is known."""
    said = [line.strip() for line in lines if line.strip() and not _NOISE.search(line.strip())]
    for pattern, meaning in MEANINGS:
        for line in reversed(said):
            if pattern.search(line):
                return f"{line[-200:]} ({meaning})"
    return said[-1][-200:] if said else ""
