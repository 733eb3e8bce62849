"""What stands over a profile, and which engine a model gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import ConfigError
from sidecar.overrides import Overrides, asks_for_more, overridden
from sidecar.profiles import LlamaCpp, Profile
from sidecar.registry import load_registry
from sidecar.settings import DEFAULT_REGISTRY, load

SHIPPED = load_registry(DEFAULT_REGISTRY)


def gguf(block: dict[str, Any] | None = None, **top: Any) -> Profile:
    fields = {"hf_repo_id": "a/b", "hf_filename": "m.gguf", "sha256": "0" * 64, **(block or {})}
    return Profile.model_validate(
        {"name": "p", "backend": "llamacpp", "model_id": "m", "vram_mib": 5, "llamacpp": fields, **top}
    )


def block_of(profile: Profile) -> LlamaCpp:
    assert profile.llamacpp
    return profile.llamacpp


def test_the_seeds_variables_reach_llama_server() -> None:
    environ = {"N_GPU_LAYERS": "33", "N_CTX": "2048", "N_BATCH": "256", "N_THREADS": "4"}
    found = SHIPPED.select("stheno-q4_k_m", load([], environ).overrides())
    block = block_of(found)
    assert (block.n_gpu_layers, block.ctx_size, block.batch_size, block.threads) == (33, 2048, 256, 4)
    assert found.context == 2048


@pytest.mark.parametrize("key", ["CTX_SIZE", "N_GPU_LAYERS", "THREADS", "PARALLEL", "BATCH_SIZE"])
def test_blank_overrides_are_no_overrides(key: str) -> None:
    found = SHIPPED.select("deepseek-70b-gguf-atlas", load([], {f"LLAMACPP_{key}_OVERRIDE": ""}).overrides())
    assert found == SHIPPED.profiles["deepseek-70b-gguf-atlas"]
    with_it = SHIPPED.select(
        "deepseek-70b-gguf-atlas", load([], {f"LLAMACPP_{key}_OVERRIDE": "64"}).overrides()
    )
    assert getattr(block_of(with_it), key.lower()) == 64


def test_a_larger_context_and_more_slots_are_not_held_down_by_the_profiles_limits() -> None:
    found = SHIPPED.select("deepseek-70b-gguf-atlas", Overrides(context=16384, parallel=3))
    assert (found.context, found.slots) == (16384, 3)


@pytest.mark.parametrize(
    ("over", "vram_mib"),
    [
        (Overrides(), 5),
        (Overrides(context=8192, parallel=4, n_gpu_layers=-1, threads=1), 5),
        (Overrides(n_gpu_layers=40), 5),
        (Overrides(context=1024), None),
        (Overrides(parallel=1), None),
        (Overrides(n_gpu_layers=4), None),
    ],
)
def test_what_is_asked_to_be_less_needs_nobody_knows_how_much(over: Overrides, vram_mib: int | None) -> None:
    found = overridden(gguf({"ctx_size": 4096, "parallel": 2, "n_gpu_layers": 30}), over)
    assert found.vram_mib == vram_mib


@pytest.mark.parametrize(
    ("over", "more"),
    [
        (Overrides(), False),
        (Overrides(context=4096, parallel=2, n_gpu_layers=30, threads=9), False),
        (Overrides(context=1024), False),
        (Overrides(context=4097), True),
        (Overrides(parallel=3), True),
        (Overrides(n_gpu_layers=-1), True),
        (Overrides(context=1024, n_gpu_layers=31), True),
    ],
)
def test_more_than_is_written(over: Overrides, more: bool) -> None:
    written = gguf({"ctx_size": 4096, "parallel": 2, "n_gpu_layers": 30})
    assert asks_for_more(overridden(written, over), written) is more


def test_a_limit_below_the_context_counts() -> None:
    limits = {"max_model_len": 1024, "max_concurrent_requests": 2}
    found = gguf({"ctx_size": 4096, "parallel": 8}, gpu=limits)
    assert (found.context, found.slots) == (1024, 2)
    assert (gguf().context, gguf().slots) == (4096, 1)


def test_for_transformers_they_are_its_own_keys() -> None:
    found = SHIPPED.select("embedded", Overrides(context=64, parallel=3, batch_size=32, n_gpu_layers=5))
    assert (found.context, found.slots, found.batch_tokens) == (64, 3, 32)


def test_a_gguf_path_takes_the_place_of_a_llamacpp_profiles_file() -> None:
    found = overridden(gguf({"ctx_size": 99}), Overrides(model_path=Path("/x/other.gguf")))
    assert (found.name, block_of(found).model_path, found.context) == ("p", "/x/other.gguf", 99)
    assert (block_of(found).sha256, found.vram_mib) == ("", None)


def test_a_copy_of_the_same_file_keeps_what_was_said_of_it() -> None:
    found = overridden(gguf(), Overrides(model_path=Path("/x/m.gguf")))
    assert (block_of(found).sha256, found.vram_mib) == ("0" * 64, 5)


def test_a_gguf_path_needs_no_profile_and_no_transformers_one() -> None:
    over = Overrides(model_path=Path("/models/model.gguf"), n_gpu_layers=33)
    for name in (None, "embedded"):
        found = SHIPPED.select(name, over)
        assert (found.name, found.backend, found.model_id) == ("own", "llamacpp", "model")
        assert (block_of(found).model_path, block_of(found).n_gpu_layers) == ("/models/model.gguf", 33)


def test_a_folder_is_for_transformers_whatever_the_profile(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    found = SHIPPED.select("stheno-q4_k_m", Overrides(model_path=tmp_path))
    assert (found.name, found.backend, found.context) == ("own", "transformers", 512)


def test_a_file_of_the_hub() -> None:
    found = overridden(gguf(), Overrides(model_id="c/d@v1:sub/x.gguf"))
    block = block_of(found)
    assert (block.hf_repo_id, block.hf_revision, block.hf_filename) == ("c/d", "v1", "sub/x.gguf")
    assert (block.sha256, found.vram_mib) == ("", None)
    own = SHIPPED.select(None, Overrides(model_id="c/d:x.gguf"))
    assert (own.name, own.model_id, block_of(own).hf_repo_id) == ("own", "x", "c/d")
    assert SHIPPED.select("embedded", Overrides(model_id="c/d:x.gguf")) == own


def test_another_repository_has_another_image_encoder_or_none() -> None:
    seeing = gguf({"mmproj_filename": "p.gguf"}, supports_vision=True)
    same = overridden(seeing, Overrides(model_id="a/b:x.gguf"))
    assert (block_of(same).mmproj_filename, same.supports_vision) == ("p.gguf", True)
    other = overridden(seeing, Overrides(model_id="c/d:x.gguf"))
    assert (block_of(other).mmproj_filename, other.supports_vision) == ("", False)
    copied = overridden(seeing, Overrides(model_path=Path("/x/y.gguf")))
    assert copied.supports_vision


def test_a_repository_alone_is_not_enough_for_llama_server() -> None:
    with pytest.raises(ConfigError, match=r"MODEL_ID=c/d: profile p .* accepted: owner/name:file\.gguf"):
        overridden(gguf(), Overrides(model_id="c/d"))


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_gguf_file_is_not_quantised_again(bits: Any) -> None:
    with pytest.raises(ConfigError, match=f"LOAD_IN_{bits.upper()}: a GGUF file is quantised already"):
        overridden(gguf(), Overrides(quantization=bits))
