"""Transformers folders: fetched whole, found again, and held to their index; `llm-sidecar download`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from sidecar import weights
from sidecar.errors import WeightsDamaged, WeightsMissing
from tests.weights.machine import Machine

REPO = "owner/model"
Files = Callable[[], dict[str, bytes]]
DOWNLOAD = (sys.executable, "-m", "sidecar", "download")


def download(machine: Machine, *flags: str, **environ: str) -> tuple[int, str, str]:
    return machine.typed(*DOWNLOAD, *flags, **environ)


def registry(folder: Path, *sources: str) -> dict[str, str]:
    """The environment in which a profile `own` has those sources."""
    path = folder / "profiles.yaml"
    own = {"backend": "transformers", "model_id": "own", "transformers": {"sources": list(sources)}}
    path.write_text(json.dumps({"profiles": {"own": own}}))
    return {"LLM_PROFILES_CONFIG_PATH": str(path), "LLM_PROFILE_NAME": "own"}


def test_a_model_is_fetched_whole_and_once(machine: Machine, transformers_files: Files) -> None:
    blobs = machine.hub.add(REPO, transformers_files())
    code, said, log = download(machine, MODEL_ID=REPO)
    assert code == 0, log
    folder = machine.cache / "models--owner--model" / "snapshots" / machine.hub.commit(REPO)
    assert f"in {folder}" in said
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        name for name in blobs if name not in ("pytorch_model.bin", "onnx/config.json")
    )
    assert snapshot_download(REPO, cache_dir=machine.cache, local_files_only=True) == str(folder)
    asked = len(machine.hub.requests)
    assert download(machine, MODEL_ID=REPO)[0] == 0
    assert len(machine.hub.requests) == asked


def test_a_model_that_somebody_fetched_in_part_is_completed(
    machine: Machine, transformers_files: Files
) -> None:
    machine.hub.add(REPO, transformers_files())
    download(machine, MODEL_ID=REPO)
    folder = machine.cache / "models--owner--model" / "snapshots" / machine.hub.commit(REPO)
    (folder / "model-2.safetensors").unlink()
    machine.hub.requests.clear()
    assert download(machine, MODEL_ID=REPO)[0] == 0
    assert (folder / "model-2.safetensors").is_file()
    assert not any("stored" in request for request in machine.hub.requests), "its blob was there"


def test_only_a_model_that_does_not_exist_sends_on_to_the_next_source(
    machine: Machine, transformers_files: Files
) -> None:
    machine.hub.add("owner/second", transformers_files())
    machine.environ |= registry(machine.folder, "owner/first", "owner/second")
    code, said, _ = download(machine, HF_ENDPOINT="http://127.0.0.1:1")
    assert code == 66
    assert "second" not in said
    code, said, log = download(machine)
    assert code == 0
    assert "models--owner--second" in said
    assert "owner/first: the hub has no such repository" in log


def test_a_gated_one_says_what_to_do(machine: Machine, transformers_files: Files) -> None:
    machine.hub.add(REPO, transformers_files(), gated=True)
    code, _, said = download(machine, MODEL_ID=REPO)
    assert code == 66
    assert f"Ask for access on {machine.hub.url}/{REPO}" in said
    assert "Traceback" not in said


def test_a_name_that_no_repository_has(machine: Machine) -> None:
    code, _, said = download(machine, **registry(machine.folder, "not/a/name"))
    assert code == 78
    assert "owner/name is expected" in said


def test_a_repository_that_is_no_transformers_model(machine: Machine) -> None:
    machine.hub.add(REPO, {"model.gguf": b"GGUF"})
    code, _, said = download(machine, MODEL_ID=REPO)
    assert code == 66
    assert "holds no config.json" in said
    assert "llamacpp" in said


def test_a_broken_index_in_the_cache_and_a_file_that_the_index_names(
    tmp_path: Path, transformers_files: Files
) -> None:
    for name, data in transformers_files().items():
        if "/" not in name:
            (tmp_path / name).write_bytes(data)
    weights.check(tmp_path)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(WeightsMissing, match=r"lacks model-2\.safetensors, which model\.safetensors\.index"):
        weights.check(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    for broken in ("[]", "{", '{"weight_map": {"a": "../b"}}', '{"weight_map": {"a": 1}}'):
        index.write_text(broken)
        with pytest.raises(WeightsDamaged, match=r"index\.json"):
            weights.check(tmp_path)
