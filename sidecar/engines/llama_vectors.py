"""The vectors in an answer of llama-server's `/v1/embeddings`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sidecar.errors import EngineFault
from sidecar.generation import Embeddings


class _Vector(msgspec.Struct):
    embedding: list[float]
    index: int


class _Usage(msgspec.Struct):
    prompt_tokens: int


class _Answer(msgspec.Struct):
    data: list[_Vector]
    usage: _Usage


def embeddings(answer: Mapping[str, Any], inputs: int) -> Embeddings:
    """One vector for each of the inputs, in their order. Raises EngineFault."""
    try:
        found = msgspec.convert(answer, _Answer)
    except msgspec.MsgspecError as error:
        raise EngineFault(f"The engine sent vectors that can not be read: {str(error)[:120]}.") from None
    rows = sorted(found.data, key=lambda row: row.index)
    if [row.index for row in rows] != list(range(inputs)):
        raise EngineFault(f"The engine sent {len(rows)} vectors for {inputs} inputs.")
    return Embeddings(tuple(tuple(row.embedding) for row in rows), found.usage.prompt_tokens)
