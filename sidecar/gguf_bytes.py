"""The bytes of a GGUF header, one value after the other, each held against what the file can hold."""

from __future__ import annotations

import struct
from typing import BinaryIO, NoReturn

from sidecar.errors import WeightsDamaged

# Far above what any model has: a vocabulary and its merges are some 10 MB and 800,000 texts.
MAX_HEADER_BYTES = 256 * 1024 * 1024
MAX_TEXTS = 2_000_000
LENGTH = struct.Struct("<Q")


class Cursor:
    """Reads forward only, and never believes a length that goes beyond the file."""

    def __init__(self, stream: BinaryIO, size_bytes: int, name: str) -> None:
        self._stream = stream
        self._size = size_bytes
        self._name = name
        self.at = 0
        self._texts_left = MAX_TEXTS

    def first(self, count: int) -> bytes:
        """What the file begins with; less where it is shorter."""
        return self.take(min(count, self._size))

    def take(self, count: int) -> bytes:
        """The next bytes."""
        self._move(count)
        data = self._stream.read(count)
        if len(data) != count:
            self.cut(f"ends within its header, at {self.at - count + len(data)} bytes")
        return data

    def skip(self, count: int) -> None:
        """Go on behind the next bytes."""
        self._move(count)
        self._stream.seek(count, 1)

    def number(self, code: str) -> int:
        """The next whole number, little-endian."""
        value: int = struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]
        return value

    def length(self) -> int:
        """The next length or count, 64 bits."""
        value: int = LENGTH.unpack(self.take(8))[0]
        return value

    def text(self, limit_bytes: int) -> str:
        """The next text; what is no UTF-8 in it is replaced."""
        length = self.length()
        if length > limit_bytes:
            self._inside(length)
            self.fail(f"a name or text of {length} bytes is longer than {limit_bytes}")
        return self.take(length).decode("utf-8", "replace")

    def skip_texts(self, count: int, key: str) -> None:
        """Go on behind that many texts, the value of `key`."""
        self._texts_left -= count
        if self._texts_left < 0:
            self.fail(f"{key[:64]!r} has {count} texts, more than {MAX_TEXTS} in all")
        for _ in range(count):
            self.skip(self.length())

    def cut(self, how: str) -> NoReturn:
        """The file is shorter than it says."""
        raise WeightsDamaged(f"{self._name} is truncated: {how}. Delete it and fetch it again.")

    def fail(self, why: str) -> NoReturn:
        """The file is not what it should be."""
        raise WeightsDamaged(f"{self._name} is damaged: {why}. Delete it and fetch it again.")

    def refuse(self, why: str) -> NoReturn:
        """The file is something else."""
        raise WeightsDamaged(f"{self._name}: {why}")

    def _move(self, count: int) -> None:
        self._inside(count)
        self.at += count
        if self.at > MAX_HEADER_BYTES:
            self.fail(f"its header is longer than {MAX_HEADER_BYTES} bytes")

    def _inside(self, count: int) -> None:
        if count > self._size - self.at:
            self.cut(f"its header goes on behind the file's {self._size} bytes")
