"""A machine of its own for each test, and a hub beside it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.hub import running
from tests.weights.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A fresh machine with a hub."""
    with running() as hub:
        yield Machine(tmp_path, hub)


@pytest.fixture
def transformers_files() -> Callable[[], dict[str, bytes]]:
    """A small model in the form of transformers, with an index of two files."""

    def make() -> dict[str, bytes]:
        head = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
        part = len(head).to_bytes(8, "little") + head + bytes(8)
        index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
        return {
            "config.json": b"{}",
            "tokenizer.json": b"{}",
            "model.safetensors.index.json": json.dumps(index).encode(),
            "model-1.safetensors": part,
            "model-2.safetensors": part[:-1] + b"x",
            "pytorch_model.bin": b"never fetched",
            "onnx/config.json": b"never fetched",
        }

    return make


@pytest.fixture
def parts() -> dict[str, bytes]:
    """The two files of a split model, in a folder of the repository."""
    key = b"split.count"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    entry = struct.pack("<Q", len(key)) + key + struct.pack("<IH", 2, 2)
    return {f"Q4/m-0000{n}-of-00002.gguf": head + entry + bytes([n]) for n in (1, 2)}
