"""What a model's files hold, tensor by tensor, as their headers say it: sizes, no data. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sidecar.budget import MIB
from sidecar.errors import WeightsDamaged
from sidecar.model_shape import ModelShape

Part = Literal["embedding", "head", "layers", "other"]
# Bits of one number (huggingface/safetensors, the format's dtypes).
BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
    "U16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F6_E2M3": 6,
    "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_LAYER = re.compile(r"(?:^|\.)(?:layers|blk|h|blocks)\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """`numbers` of `dtype` in `size_bytes`; `matrix`: it has two dimensions or more."""

    name: str
    dtype: str
    numbers: int
    size_bytes: int
    matrix: bool

    @property
    def layer(self) -> int | None:
        """The layer that it belongs to, if it belongs to one."""
        found = _LAYER.search(self.name)
        return int(found[1]) if found else None

    @property
    def part(self) -> Part:
        """What it is part of; `other` are the norm at the end and whatever stands beside the layers."""
        if self.layer is not None:
            return "layers"
        if re.search(r"(^|\.)(embed_tokens|wte|token_embd)\.", self.name):
            return "embedding"
        return "head" if re.match(r"(lm_head|output)\.", self.name) else "other"


@dataclass(frozen=True, slots=True)
class Stored:
    """All tensors of one model."""

    tensors: tuple[StoredTensor, ...]

    @property
    def mib(self) -> float:
        """Their size in the files."""
        return self.part_mib("embedding", "head", "layers", "other")

    def part_mib(self, *parts: Part) -> float:
        """The size of those parts in the files."""
        return sum(t.size_bytes for t in self.tensors if t.part in parts) / MIB


@dataclass(frozen=True, slots=True)
class Model:
    """A model as its files describe it. `mmproj_mib` is the image encoder's file."""

    stored: Stored
    shape: ModelShape
    mmproj_mib: float = 0.0


def safetensors(header: bytes, name: str) -> Iterable[StoredTensor]:
    """The tensors of one file, from its JSON header. Raises WeightsDamaged."""
    try:
        told: Mapping[str, Any] = json.loads(header)
        return [_tensor(key, entry) for key, entry in told.items() if key != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsDamaged(f"{name} has a broken header ({error}); fetch it again.") from None


def _tensor(name: str, entry: Mapping[str, Any]) -> StoredTensor:
    begin, end = entry["data_offsets"]
    shape = entry["shape"]
    return StoredTensor(name, str(entry["dtype"]), math.prod(shape), int(end) - int(begin), len(shape) > 1)
