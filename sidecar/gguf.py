"""What the header of a GGUF file says, read with suspicion (ggml-org/ggml, docs/gguf.md).

The file may be cut, be something else, or want to harm: every length is held against what is left
of the file before it is believed, nothing large is kept, and whatever is wrong is one WeightsDamaged.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from sidecar.errors import WeightsDamaged, WeightsMissing
from sidecar.gguf_bytes import Cursor

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
# Bounds far above what any model has; they keep a harmful header from costing time or memory.
MAX_ENTRIES = 100_000
MAX_NAME_BYTES = 65_535
MAX_TEXT_BYTES = 1024 * 1024
MAX_KEPT_NUMBERS = 1024
MAX_DIMENSIONS = 4

TEXT, ARRAY = 8, 9
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# Elements in one block and its bytes, by the tensor's type. A type that is not here is newer than
# this table: its size is not known, so it is not checked.
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56),
    30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36),
}  # fmt: skip
PART = re.compile(r"(.+-)(\d{5})-of-(\d{5})\.gguf")

Value = int | float | bool | str | tuple[int | float | bool, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One line of the file's table. `offset` counts from the beginning of the data."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int

    @property
    def size_bytes(self) -> int | None:
        """What it takes in the file; None for a type that is newer than this code."""
        if self.type_id not in BLOCKS:
            return None
        elements, block_bytes = BLOCKS[self.type_id]
        return math.prod(self.shape) // elements * block_bytes


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Everything before the tensors' data.

    `metadata` holds numbers, texts and short arrays of numbers; of the others, `lengths` holds how
    many elements they have and `starts` where the first one is in the file. `data_offset` is where the
    first tensor may begin.
    """

    version: int
    tensor_count: int
    metadata: Mapping[str, Value]
    lengths: Mapping[str, int]
    starts: Mapping[str, int]
    tensors: tuple[Tensor, ...]
    data_offset: int

    @property
    def architecture(self) -> str:
        """`general.architecture`, or nothing where it is not said."""
        said = self.metadata.get("general.architecture", "")
        return said if isinstance(said, str) else ""

    @property
    def context_length(self) -> int | None:
        """The context that the model was made for, in tokens."""
        return self.number("context_length")

    @property
    def block_count(self) -> int | None:
        """The number of its layers."""
        return self.number("block_count")

    @property
    def has_chat_template(self) -> bool:
        """Whether the file brings the template of a chat."""
        return "tokenizer.chat_template" in self.metadata

    @property
    def part_count(self) -> int:
        """Of how many files the model is made."""
        said = self.metadata.get("split.count", 1)
        return said if isinstance(said, int) and said > 0 else 1

    @property
    def needed_bytes(self) -> int:
        """The size that the file has at least; tensors of unknown types count as empty."""
        ends = (tensor.offset + (tensor.size_bytes or 0) for tensor in self.tensors)
        return self.data_offset + max(ends, default=0)

    def number(self, key: str) -> int | None:
        """The whole number under `<architecture>.<key>`."""
        said = self.metadata.get(f"{self.architecture}.{key}")
        return said if isinstance(said, int) and not isinstance(said, bool) else None


def part_names(name: str) -> tuple[str, ...]:
    """All files of the model that `name` belongs to, the first one first; usually `name` alone."""
    found = PART.fullmatch(name)
    if found is None or not 1 <= int(found[2]) <= int(found[3]):
        return (name,)
    return tuple(f"{found[1]}{part:05}-of-{found[3]}.gguf" for part in range(1, int(found[3]) + 1))


def check(path: Path, fetch: str = "") -> GgufHeader:
    """The header of a model whose files are whole, as far as headers tell; the first part's if it is split.

    Raises WeightsMissing that names the parts which are not there, and `fetch`, the command that fetches
    them if there is one; WeightsDamaged for the first file that is not what it should be.
    """
    parts = [path.with_name(name) for name in part_names(path.name)]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise WeightsMissing(
            f"{path.parent} lacks {', '.join(missing[:3])}"
            + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            + (f"; `{fetch}` fetches it, or put it there yourself." if fetch else "; put it there.")
        )
    headers = [_check_one(part) for part in parts]
    if headers[0].part_count != len(parts):
        raise WeightsDamaged(
            f"{parts[0]} says that it is one of {headers[0].part_count} parts, its name says "
            f"{len(parts)}; give the parts their own names again (...-00001-of-00002.gguf)."
        )
    return headers[0]


def _check_one(path: Path) -> GgufHeader:
    try:
        with path.open("rb") as stream:
            return read(stream, path.stat().st_size, str(path))
    except OSError as error:
        raise WeightsDamaged(f"{path} can not be read ({error.strerror or type(error).__name__}).") from error


def read(stream: BinaryIO, size_bytes: int, name: str) -> GgufHeader:
    """The header of the file `name` of that size. Raises WeightsDamaged if it is none or is cut."""
    cursor = Cursor(stream, size_bytes, name)
    version = _version(cursor)
    tensor_count, entry_count = cursor.length(), cursor.length()
    if max(tensor_count, entry_count) > MAX_ENTRIES:
        cursor.fail(f"{tensor_count} tensors and {entry_count} entries are more than {MAX_ENTRIES}")
    metadata: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    starts: dict[str, int] = {}
    for _ in range(entry_count):
        _entry(cursor, metadata, lengths, starts)
    tensors = tuple(_tensor(cursor) for _ in range(tensor_count))
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        cursor.fail(f"general.alignment is {alignment!r}, which is no power of two")
    data_offset = -(-cursor.at // alignment) * alignment
    header = GgufHeader(version, tensor_count, metadata, lengths, starts, tensors, data_offset)
    if tensors and header.needed_bytes > size_bytes:
        cursor.cut(f"has {size_bytes} of {header.needed_bytes} bytes")
    return header


def _version(cursor: Cursor) -> int:
    begins = cursor.first(len(MAGIC))
    if begins != MAGIC:
        _something_else(cursor, begins)
    version = cursor.number("I")
    if version not in VERSIONS:
        _unknown(cursor, version)
    return version


def _unknown(cursor: Cursor, version: int) -> NoReturn:
    if version & 0xFFFF == 0:
        cursor.refuse("a GGUF file for big-endian machines, which is not read; take the ordinary file.")
    known = " and ".join(map(str, VERSIONS))
    cursor.refuse(f"GGUF version {version} is not known, only {known}; take a file of another build.")


def _something_else(cursor: Cursor, begins: bytes) -> NoReturn:
    if not begins:
        cursor.refuse("not a GGUF file (it is empty). Delete it and fetch it again.")
    hint = {
        b"vers": "a Git LFS pointer: fetch the file itself, with `hf download` or `git lfs pull`",
        b"<!DO": "a web page: fetch the file itself, from its `resolve` address",
        b"<htm": "a web page: fetch the file itself, from its `resolve` address",
        b"PK\x03\x04": "a zip archive or a pickle: only GGUF files are loaded",
    }.get(begins, "delete it and fetch it again, or name another file")
    cursor.refuse(f"not a GGUF file (begins with {begins!r}); {hint}.")


def _entry(
    cursor: Cursor, metadata: dict[str, Value], lengths: dict[str, int], starts: dict[str, int]
) -> None:
    key = cursor.text(MAX_NAME_BYTES)
    kind = cursor.number("I")
    if kind == TEXT:
        metadata[key] = cursor.text(MAX_TEXT_BYTES)
    elif kind == ARRAY:
        of, length = cursor.number("I"), cursor.length()
        lengths[key], starts[key] = length, cursor.at
        if (kept := _array(cursor, key, of, length)) is not None:
            metadata[key] = kept
    elif kind in NUMBERS:
        metadata[key] = cursor.number(NUMBERS[kind])
    else:
        cursor.fail(f"{key[:64]!r} is of type {kind}, which there is not")


def _array(cursor: Cursor, key: str, of: int, length: int) -> tuple[int | float | bool, ...] | None:
    """The numbers of a short array; a long one and one of texts are only passed."""
    if of in NUMBERS:
        code = NUMBERS[of]
        if length > MAX_KEPT_NUMBERS:
            cursor.skip(length * struct.calcsize(f"<{code}"))
            return None
        layout = f"<{length}{code}"
        return struct.unpack(layout, cursor.take(struct.calcsize(layout)))
    if of != TEXT:
        cursor.fail(f"{key[:64]!r} is an array of type {of}, which there is not")
    cursor.skip_texts(length, key)
    return None


def _tensor(cursor: Cursor) -> Tensor:
    name = cursor.text(MAX_NAME_BYTES)
    dimensions = cursor.number("I")
    if dimensions > MAX_DIMENSIONS:
        cursor.fail(f"tensor {name[:64]!r} has {dimensions} dimensions, more than {MAX_DIMENSIONS}")
    shape = tuple(cursor.length() for _ in range(dimensions))
    tensor = Tensor(name, shape, cursor.number("I"), cursor.length())
    row = shape[0] if shape else 1
    if row % BLOCKS.get(tensor.type_id, (1, 0))[0]:
        cursor.fail(f"tensor {name[:64]!r} of type {tensor.type_id} has rows of {row} elements")
    return tensor
