"""The registry: what loads, and what is refused in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from sidecar.errors import ConfigError
from sidecar.overrides import Overrides
from sidecar.registry import Registry, load_registry
from sidecar.settings import DEFAULT_REGISTRY
from sidecar.unused import unused

ATLAS = Path(__file__).parent / "atlas.yaml"
GOOD = "{backend: transformers, model_id: m, transformers: {sources: [embedded]}}"


def gguf(more: str) -> str:
    """A profile for llama-server with a bit more in its block."""
    return f"profiles: {{a: {{backend: llamacpp, model_id: m, llamacpp: {{model_path: /m.gguf, {more}}}}}}}"


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
    found = registry(tmp_path, ATLAS.read_text()).profiles["deepseek-70b-gguf-atlas"]
    assert found.llamacpp
    assert found.llamacpp.n_gpu_layers == 80
    assert found.gpu.device_ids == [0, 1, 2, 3]


SEEDS = {
    "embedded", "embedded-gguf", "hermes-3-8b-gptq", "hermes-3-8b-8bit", "hermes-3-8b-q4_k_m",
    "stheno-q4_k_m", "stheno-q5_k_m", "stheno-q6_k", "lumimaid-q4_k_m", "lumimaid-q5_k_m", "lumimaid-q6_k",
    "deepseek-70b-gguf-atlas", "qwen3-vl-30b",
}  # fmt: skip


def test_every_model_of_the_seeds_is_shipped_with_the_vram_it_needs() -> None:
    shipped = load_registry(DEFAULT_REGISTRY).profiles
    assert set(shipped) == SEEDS
    for profile in shipped.values():
        said = re.search(r"[Nn]eeds .*?([\d.]+) GiB of VRAM", profile.description)
        assert said, profile.name
        assert profile.vram_mib
        assert float(said[1]) == pytest.approx(profile.vram_mib / 1024, abs=0.08)
        assert profile.display_name
        assert "supports_tools" in profile.model_fields_set


def test_the_shipped_registry_says_nothing_in_vain_but_what_the_third_seed_says() -> None:
    shipped = load_registry(DEFAULT_REGISTRY).profiles
    assert [name for name, profile in shipped.items() if unused(profile)] == ["deepseek-70b-gguf-atlas"]
    example = yaml.safe_load(ATLAS.read_text())["profiles"]["deepseek-70b-gguf-atlas"]
    copy = yaml.safe_load(DEFAULT_REGISTRY.read_text())["profiles"]["deepseek-70b-gguf-atlas"]
    assert {key: copy[key] for key in example} == example
    assert set(copy) - set(example) == {"description", "vram_mib"}


def test_an_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'hermes-3-8b-gpt'.*nearest: hermes-3-8b-gptq, .*; `llm-sidecar "):
        load_registry(DEFAULT_REGISTRY).select("hermes-3-8b-gpt")


def test_a_name_like_no_other_says_how_many_there_are() -> None:
    with pytest.raises(ConfigError) as refused:
        load_registry(DEFAULT_REGISTRY).select("0")
    assert "some of them: deepseek-70b-gguf-atlas, " in refused.value.message
    assert f"`llm-sidecar profiles` lists all {len(SEEDS)}, " in refused.value.message


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


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("missing", "there is no such file or folder"),
        ("model.bin", "the file is no *.gguf"),
        ("folder", "the folder has no config.json"),
    ],
)
def test_a_path_that_is_no_model(name: str, wrong: str, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    path = tmp_path / name
    with pytest.raises(ConfigError, match=f"^MODEL_PATH={path}: {re.escape(wrong)}; accepted: a "):
        load_registry(DEFAULT_REGISTRY).select(None, Overrides(model_path=path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no top-level `profiles:` key"),
        ("models: {}", "no top-level `profiles:` key"),
        ("profiles: [a]", "no top-level `profiles:` key"),
        ("profiles: {a: {", "is not YAML"),
        ("profiles: {a: 1}", "profile a: a mapping"),
        (f"profiles: {{'../a': {GOOD}}}", "no name for a profile; accepted: 1 to 64 letters, digits"),
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
        (gguf("n_ctx: 1"), "profile a: llamacpp.n_ctx: there is no such key; nearest: "),
        (gguf("ctxsize: 1"), "nearest: ctx_size"),
        (gguf("max_model_len: 1"), "nearest: gpu.max_model_len"),
        (gguf("qqqqqq: 1"), "llamacpp.qqqqqq: there is no such key"),
        (gguf("ctx_size: 8k"), "llamacpp.ctx_size: Input should be a valid integer (it is '8k')"),
        (gguf("parallel: 0"), "llamacpp.parallel: Input should be greater than or equal to 1 (it is 0)"),
        (gguf("threads: '4'"), "should be a valid integer (it is '4'; write it without the quotes)"),
        (gguf("ready_deadline_s: '9.5'"), "valid number (it is '9.5'; write it without the quotes)"),
        (gguf("cpu_moe: 'yes'"), "should be a valid boolean (it is 'yes'; write it without the quotes)"),
        (gguf("model_root: 90"), "llamacpp.model_root: Input should be a valid string (it is 90)"),
        (gguf("threads: true"), "llamacpp.threads: Input should be a valid integer (it is true)"),
        (gguf("flash_attn: maybe"), "llamacpp.flash_attn: "),
        (gguf("tensor_split: [1, 2]"), "llamacpp.tensor_split has 2 shares for 1 card(s)"),
        (gguf("cpu_moe: true, n_cpu_moe: 1"), "exclude each other"),
        (gguf("cache_type_v: q8_0, flash_attn: off"), "needs flash attention"),
        (gguf("sha256: abc"), "llamacpp.sha256: a SHA-256 in 64 hexadecimal digits, small letters is"),
        (gguf("hf_filename: ../m.gguf"), "llamacpp.hf_filename: the name of a *.gguf file, or its path"),
        (gguf("hf_filename: /etc/m.gguf"), "llamacpp.hf_filename"),
        (gguf("hf_repo_id: a"), "llamacpp.hf_repo_id: a repository of the hub, as owner/name is expected"),
        (gguf("image_hosts: ['https://a.b/']"), "llamacpp.image_hosts.0: the name of a host, with a port"),
        (gguf("mmproj_filename: p.gguf"), "needs supports_vision: true"),
        (gguf("ctx_size: 1}, supports_vision: true, gpu: {"), "supports_vision needs llamacpp.mmproj"),
        (gguf("ctx_size: 1}, task_type: embedding, gpu: {"), "needs supports_embeddings: true"),
        (gguf("ctx_size: 1}, gpu: {num_gpus: 2, device_ids: [0]"), "2 and device_ids [0] disagree"),
        (gguf("ctx_size: 1}, gpu: {device_ids: [0, 0]"), "name a card twice"),
        (gguf("ctx_size: 1}, gpu: {tensor_parallel_size: 2"), "size 2 and 1 card(s) disagree"),
        (f"profiles: {{a: {GOOD[:-1]}, supports_vision: true}}}}", "supports_vision needs backend"),
        (f"profiles: {{a: {GOOD[:-1]}, supports_embeddings: true}}}}", "engine reads and writes text alone"),
        (f"profiles: {{a: {GOOD[:-1]}, task_type: embedding}}}}", "needs supports_embeddings: true"),
        ("profiles: {a: {backend: llamacpp, model_id: m, llamacpp: {}}}", "no file is named"),
        ("profiles: {a: {backend: llamacpp, model_id: m, llamacpp: {hf_filename: m.gguf}}}", "where from"),
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
