"""The registry: what loads, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sidecar.errors import ConfigError
from sidecar.overrides import Overrides
from sidecar.registry import Registry, load_registry
from sidecar.settings import DEFAULT_REGISTRY

SEED = """
profiles:

  deepseek-70b-gguf-atlas:
    display_name: "DeepSeek R1 70B – GGUF via llama.cpp (Atlas)"
    task_type: chat
    backend: llamacpp
    model_id: "deepseek-r1-70b-q4_k_m"

    supports_tools: false
    supports_embeddings: false
    supports_vision: false

    gpu:
      num_gpus: 4
      tensor_parallel_size: 4
      device_ids: [0,1,2,3]
      max_model_len: 8192
      max_batch_tokens: 512
      max_concurrent_requests: 1
      gpu_memory_fraction: 0.9

    llamacpp:
      model_root: "/models/gguf"
      hf_repo_id: "unsloth/DeepSeek-R1-Distill-Llama-70B-GGUF"
      hf_filename: "DeepSeek-R1-Distill-Llama-70B-Q4_K_M.gguf"

      host: "0.0.0.0"
      port: 8080
      ctx_size: 8192
      n_gpu_layers: 80
      threads: 16
      parallel: 1
      batch_size: 512
"""
GOOD = "{backend: transformers, model_id: m, transformers: {sources: [embedded]}}"


def registry(folder: Path, text: str) -> Registry:
    path = folder / "profiles.yaml"
    path.write_text(text, "utf-8")
    return load_registry(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        registry(folder, text)
    assert "\n" not in refused.value.message
    return refused.value.message


def test_the_shipped_registry() -> None:
    shipped = load_registry(DEFAULT_REGISTRY)
    embedded = shipped.select(None)
    assert (embedded.name, embedded.context) == ("embedded", 2048)
    assert embedded.transformers
    assert embedded.transformers.kv_tokens == 32768
    hermes = shipped.select("hermes-3-8b-gptq")
    assert hermes.transformers
    assert hermes.context == 6144
    assert hermes.transformers.sources == [
        "TheBloke/Hermes-Trismegistus-III-8B-GPTQ",
        "NousResearch/Hermes-3-Llama-3.1-8B",
    ]


def test_the_third_seeds_example_loads_unchanged(tmp_path: Path) -> None:
    found = registry(tmp_path, SEED).profiles["deepseek-70b-gguf-atlas"]
    assert found.llamacpp
    assert found.llamacpp.n_gpu_layers == 80
    assert found.gpu.device_ids == [0, 1, 2, 3]


def test_an_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'hermes-3-8b'.*nearest: hermes-3-8b-gptq"):
        load_registry(DEFAULT_REGISTRY).select("hermes-3-8b")


def test_overrides_stand_over_the_profile() -> None:
    found = load_registry(DEFAULT_REGISTRY).select(
        "hermes-3-8b-gptq", Overrides(4096, "a/b@main", quantization="8bit")
    )
    assert found.transformers
    assert (found.context, found.transformers.sources) == (4096, ["a/b@main"])
    assert found.transformers.quantization == "8bit"
    assert found.gpu.max_batch_tokens == 2048


def test_a_model_of_ones_own_needs_no_profile(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 2048}))
    found = load_registry(DEFAULT_REGISTRY).select(None, Overrides(model_path=tmp_path))
    assert found.transformers
    assert (found.name, found.model_id, found.context) == ("own", tmp_path.name, 2048)
    assert found.transformers.sources == [str(tmp_path)]
    hub = load_registry(DEFAULT_REGISTRY).select(None, Overrides(model_id="owner/name@abc"))
    assert hub.transformers
    assert (hub.model_id, hub.transformers.sources) == ("owner/name", ["owner/name@abc"])


@pytest.mark.parametrize("name", ["missing", "model.bin"])
def test_a_path_that_is_no_model(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"MODEL_PATH=.*{name}"):
        load_registry(DEFAULT_REGISTRY).select(None, Overrides(model_path=tmp_path / name))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no top-level `profiles:` key"),
        ("models: {}", "no top-level `profiles:` key"),
        ("profiles: [a]", "no top-level `profiles:` key"),
        ("profiles: {a: {", "is not YAML"),
        ("profiles: {a: 1}", "profile a: a mapping"),
        (f"profiles: {{'../a': {GOOD}}}", "no name for a profile"),
        (f"profiles: {{1: {GOOD}}}", "no name for a profile"),
        (f"profiles:\n  a: {GOOD}\n  a: {GOOD}", "'a' appears twice (line 3)"),
        ("profiles: {a: &x {b: 1}, c: *x}", "aliases"),
        ("profiles: {a: !!python/object/apply:os.system ['x']}", "is not YAML"),
        ("profiles: {a: {backend: transformers, model_id: m}}", "needs a `transformers:` block"),
        ("profiles: {a: {backend: vllm, model_id: m}}", "a: backend: "),
        (GOOD.replace("model_id: m", "model_id: m, modelid: x").join(["profiles: {a: ", "}"]), "modelid"),
        (GOOD.replace("[embedded]", "[]").join(["profiles: {a: ", "}"]), "transformers.sources"),
        (GOOD.replace("[embedded]", "[e], kv_tokens: '9'").join(["profiles: {a: ", "}"]), "kv_tokens"),
        ("x" * (1024 * 1024 + 1), "larger than"),
    ],
    ids=lambda value: value[:40],
)  # fmt: skip
def test_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_files_that_are_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"LLM_PROFILES_CONFIG_PATH=.*there is no such file"):
        load_registry(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="can not be read"):
        load_registry(tmp_path / "bytes.yaml")
    with pytest.raises(ConfigError, match="can not be read"):
        load_registry(tmp_path)
