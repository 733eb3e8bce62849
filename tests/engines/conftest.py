"""Tiny checkpoints, made once a session."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import pytest
import torch

from sidecar.worker import load as loading
from sidecar.worker.messages import WorkerConfig
from sidecar.worker.model import Model
from tests.engines import tiny

torch.set_num_threads(1)


def config(folder: Path, **changes: object) -> WorkerConfig:
    """Small sizes, so that chunks, pages and the pool's end are met early."""
    sizes: dict[str, object] = {
        "sources": (str(folder),), "context": 256, "slots": 8, "batch_tokens": 48, "kv_tokens": 2048,
        "default_max_tokens": 32, "device": "cpu", "threads": 1,
    }  # fmt: skip
    return WorkerConfig(**{**sizes, **changes})


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`make_checkpoint(kind, **config changes)`: a folder, the same one for the same arguments."""
    made: dict[str, Path] = {}

    def make(kind: str = "llama", **changes: object) -> Path:
        key = kind + "".join(f"-{k}-{v}" for k, v in sorted(changes.items()))
        if key not in made:
            made[key] = tiny.checkpoint(tmp_path_factory.mktemp("checkpoint"), kind, **changes)
        return made[key]

    return make


@pytest.fixture(scope="session")
def folder(make_checkpoint: Callable[..., Path]) -> Path:
    """The tiny Llama's folder."""
    return make_checkpoint("llama")


@pytest.fixture
def model(folder: Path) -> Model:
    """The tiny Llama, loaded, with an empty pool."""
    return loading.load(config(folder), lambda *_: None)
