"""What a child's last lines mean, for people. Pure.

A match adds a sentence about what to do; it never decides what happens next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_CHARS = 200
# llama.cpp's own: minutes, seconds, thousandths, millionths, and a letter for the level.
_PREFIX = re.compile(r"^\d+\.\d\d\.\d{3}\.\d{3} (?P<level>[A-Z]) +")
# What ends every failed load, whatever the cause, and what a debugger says on the way.
_NOISE = re.compile(
    r"^[\s.]*$|^\x1b|^gdb:|^\[(New LWP|Inferior|Thread debugging)|cleaning up before exit"
    r"|exiting due to|common_fit_params|to show complete usage|load_model: failed to load model"
    r"|: failed to load model( '.*')?$"
)

# The first pattern that is found in any line gives the sentence; of its lines, the first one.
_TABLE = (
    (
        r"CUDA driver version is insufficient|forward compatibility was attempted",
        "the NVIDIA driver is too old for this build's CUDA: update it, or take a build with an older CUDA",
    ),
    (
        r"no kernel image is available|no device code compatible",
        "this build was not made for this card: take one whose list of CUDA architectures has it",
    ),
    (
        r"unknown model architecture|is version \d+ but this software|unknown (pre-)?tokenizer",
        "this build of llama.cpp is older than the model: take a newer build, or another model",
    ),
    (
        r"CLIP cannot be used as main model",
        "the file is a projector, which reads images for a model: name the model itself in hf_filename, "
        "and this one in mmproj_filename",
    ),
    (
        r"missing tensor|wrong number of tensors|has wrong shape|tensor .* not found"
        r"|failed to read tensor data|has offset \d+, expected",
        "the GGUF is damaged, incomplete or of another llama.cpp version: delete it and download it again, "
        "and compare the file's name with the profile's",
    ),
    (
        r"GGUFv1 is no longer supported|endianness",
        "the GGUF is of a form that is not read any more, or damaged: delete it and download it again",
    ),
    (
        r"invalid magic|bad magic|not a GGUF|failed to read magic",
        "the file is no GGUF: delete it and download it again",
    ),
    (
        r"not within the file bounds|file is truncated|unexpectedly reached end|corrupted or incomplete"
        r"|failed to read (header|key-value pairs|tensor info)|exceeds maximum|failed to seek for tensor",
        "the GGUF is cut short: delete it and download it again",
    ),
    (
        r"failed to open (GGUF )?file .*No such file",
        "the file is not there, or was moved while it was loaded",
    ),
    (
        r"out of memory|failed to allocate|cudaMalloc failed|unable to allocate|bad_alloc|insufficient memory"
        r"|Cannot allocate memory|Resource temporarily unavailable",
        "there is not enough memory: lower ctx_size, parallel or n_gpu_layers, take a smaller "
        "quantisation, or free the card",
    ),
    (
        r"couldn't bind|address already in use|failed to bind",
        "its port was taken in the same moment; another one is tried",
    ),
    (
        r"quantized V cache requires",
        "cache_type_v needs flash attention: set flash_attn to on, or leave cache_type_v out",
    ),
    (
        r"(invalid|unknown|unrecognized) argument|error while handling argument|expected value for argument"
        r"|argument has been removed",
        "this build does not take one of the flags: see extra_args of the profile, and llm-sidecar plan",
    ),
    (
        r"chat template is not supported|failed to initialize chat template",
        "the chat template can not be read: see chat_template_file of the profile",
    ),
    (
        r"failed to create(_| llama_)?context",
        "the context can not be made: lower ctx_size or parallel",
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
        r"clip_model_loader|clip_init|mtmd_init_from_file|failed to load multimodal model",
        "the projector (mmproj) can not be used with this model: both must come from one repository",
    ),
)
MEANINGS = tuple((re.compile(pattern, re.IGNORECASE), meaning) for pattern, meaning in _TABLE)


@dataclass(frozen=True, slots=True)
class _Line:
    level: str
    text: str


def last_words(lines: Sequence[str]) -> str:
    """The line that says why the child ended, and what to do about it.

    Where the table has nothing: its first line of error, else the last that it wrote without a level,
    as programs do that can not go on; empty when there is neither.
    """
    said = list(_cleaned(lines))
    for pattern, meaning in MEANINGS:
        for line in said:
            if pattern.search(line.text):
                return f"{line.text[:MAX_CHARS]} ({meaning})"
    errors = [line.text for line in said if line.level == "E"]
    bare = [line.text for line in said if not line.level]
    return (errors[:1] or bare[-1:] or [""])[0][:MAX_CHARS]


def without_requests(lines: Sequence[str]) -> list[str]:
    """What may stand in a log: llama-server's warnings quote what a client sent."""
    return [line for line in lines if "got exception" not in line]


def _cleaned(lines: Sequence[str]) -> Iterator[_Line]:
    for line in lines:
        found = _PREFIX.match(line)
        text = (line[found.end() :] if found else line).strip()
        if not _NOISE.search(text):
            yield _Line(found["level"] if found else "", text)
