"""What of a GGUF's vocabulary has to be known to keep a client's words apart from control tokens."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from sidecar import gguf
from sidecar.gguf import GgufHeader
from sidecar.gguf_bytes import Cursor

TOKENS, TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
CONTROL = 3  # llama.cpp, llama.h: LLAMA_TOKEN_TYPE_CONTROL
MAX_TOKEN_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`size` tokens, none longer than `longest_token_bytes`; `control` are the texts of control tokens.

    `made_for` is the context that the model was made for, in tokens.
    """

    size: int
    longest_token_bytes: int
    control: tuple[str, ...]
    made_for: int | None = None


def read(path: Path) -> Vocabulary:
    """The vocabulary of the model. Raises WeightsDamaged for a file that is no GGUF."""
    header = gguf.check(path)
    with path.open("rb") as stream:
        stream.seek(header.starts.get(TOKENS, 0))
        cursor = Cursor(stream, path.stat().st_size, str(path))
        types = _types(path, header)
        longest, control = 1, []
        for index in range(header.lengths.get(TOKENS, 0)):
            text = cursor.text(MAX_TOKEN_BYTES)
            longest = max(longest, len(text.encode()))
            if index < len(types) and types[index] == CONTROL:
                control.append(text)
    return Vocabulary(header.lengths.get(TOKENS, 0), longest, tuple(control), header.context_length)


def _types(path: Path, header: GgufHeader) -> tuple[int, ...]:
    kept = header.metadata.get(TYPES)
    if isinstance(kept, tuple):
        return tuple(map(int, kept))
    layout = f"<{header.lengths.get(TYPES, 0)}i"
    with path.open("rb") as stream:
        stream.seek(header.starts.get(TYPES, 0))
        return struct.unpack(layout, stream.read(struct.calcsize(layout)))
