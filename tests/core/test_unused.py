"""Every key does something, or is named with the reason why it does not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.errors import ConfigError
from sidecar.explain import Explanation, explain
from sidecar.gpu import GpuReading
from sidecar.profiles import Profile
from sidecar.serve import served_model
from sidecar.settings import load
from sidecar.unused import unused, unused_settings

ATLAS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "atlas.yaml").read_text())
NAME = "deepseek-70b-gguf-atlas"
GIB = 1024**3
CARDS = tuple(GpuReading(i, "P40", f"GPU-{i}", 0, 24 * GIB, None) for i in range(4))
# Where each key of the third seed's example is felt when it is taken away. `default` is nowhere: it says
# what holds without it, and another value is felt.
FELT = {
    "display_name": "offers",
    "task_type": "default",
    "backend": "refused",
    "model_id": "refused",
    "supports_tools": "default",
    "supports_embeddings": "default",
    "supports_vision": "default",
    "gpu.num_gpus": "unused",
    "gpu.tensor_parallel_size": "command",
    "gpu.device_ids": "command",
    "gpu.max_model_len": "unused",
    "gpu.max_batch_tokens": "command",
    "gpu.max_concurrent_requests": "unused",
    "gpu.gpu_memory_fraction": "limits",
    "llamacpp.model_root": "command",
    "llamacpp.hf_repo_id": "default",
    "llamacpp.hf_filename": "refused",
    "llamacpp.host": "unused",
    "llamacpp.port": "unused",
    "llamacpp.ctx_size": "unused",
    "llamacpp.n_gpu_layers": "command",
    "llamacpp.threads": "command",
    "llamacpp.parallel": "unused",
    "llamacpp.batch_size": "default",
}
# What these say is what is meant without them; another value is felt.
ANOTHER = {
    "task_type": ("completion", "unused"),
    "supports_tools": (True, "offers"),
    "supports_vision": (True, "refused"),
    "supports_embeddings": (True, "command"),
    "gpu.max_model_len": (4096, "limits"),
    "llamacpp.ctx_size": (2048, "limits"),
    "llamacpp.parallel": (4, "unused"),
    "gpu.gpu_memory_fraction": (0.5, "limits"),
    "gpu.tensor_parallel_size": (1, "command"),
    "llamacpp.batch_size": (1024, "command"),
}


PARTS = ("offers", "limits", "unused", "command")


@pytest.fixture(autouse=True)
def _no_llama_server_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")


def plan(
    folder: Path,
    fields: dict[str, Any],
    cards: tuple[GpuReading, ...] = CARDS,
    environ: dict[str, str] | None = None,
) -> Explanation:
    path = folder / "profiles.yaml"
    path.write_text(yaml.safe_dump({"profiles": {NAME: fields}}))
    settings = load(["--profile", NAME, "--profiles_config", str(path)], environ or {})
    return asyncio.run(explain(settings, cards, 8192))


def example() -> dict[str, Any]:
    fields: dict[str, Any] = yaml.safe_load(yaml.safe_dump(ATLAS["profiles"][NAME]))
    return fields


def changed(key: str, value: Any = None) -> dict[str, Any]:
    """The example with one key taken away, or with another value."""
    fields = example()
    *above, name = key.split(".")
    block = fields[above[0]] if above else fields
    block.pop(name) if value is None else block.update({name: value})
    return fields


def part(found: Explanation, name: str) -> object:
    """Of a limit its value: what set it differs where a key says what holds without it."""
    if name == "offers":
        return served_model(found.profile)
    return [(row.name, row.value) for row in found.limits] if name == "limits" else getattr(found, name)


def test_the_table_is_the_example() -> None:
    fields = ATLAS["profiles"][NAME]
    keys = [f"{name}.{key}" for name in ("gpu", "llamacpp") for key in fields[name]]
    assert set(FELT) == set(keys) | set(fields) - {"gpu", "llamacpp"}


@pytest.mark.parametrize("key", FELT)
def test_a_key_that_is_taken_away_is_felt(key: str, tmp_path: Path) -> None:
    before = plan(tmp_path, ATLAS["profiles"][NAME])
    if FELT[key] == "refused":
        with pytest.raises(ConfigError, match=key.rpartition(".")[2]):
            plan(tmp_path, changed(key))
        return
    after = plan(tmp_path, changed(key))
    if FELT[key] == "default":
        assert key in {*ANOTHER, "llamacpp.hf_repo_id"}
        assert all(part(after, where) == part(before, where) for where in PARTS)
        return
    assert part(after, FELT[key]) != part(before, FELT[key])


@pytest.mark.parametrize("key", ANOTHER)
def test_another_value_is_felt(key: str, tmp_path: Path) -> None:
    value, where = ANOTHER[key]
    if where == "refused":
        with pytest.raises(ConfigError, match=key):
            plan(tmp_path, changed(key, value))
        return
    before = plan(tmp_path, ATLAS["profiles"][NAME])
    assert part(plan(tmp_path, changed(key, value)), where) != part(before, where)


def test_the_repository_is_felt_where_no_folder_is_said(tmp_path: Path) -> None:
    fields = changed("llamacpp.model_root")
    before = plan(tmp_path, fields).command
    fields["llamacpp"]["hf_repo_id"] = "another/repository"
    assert plan(tmp_path, fields).command != before


@pytest.mark.parametrize(("device", "cards"), [("auto", CARDS), ("auto", ()), ("cpu", CARDS)])
@pytest.mark.parametrize("variable", ["", "N_GPU_LAYERS", "LLAMACPP_N_GPU_LAYERS_OVERRIDE"])
def test_layers_are_in_vain_on_a_cpu_and_told_once(
    device: str, cards: tuple[GpuReading, ...], variable: str, tmp_path: Path
) -> None:
    said = {"N_GPU_LAYERS": "", variable: "40"} if variable else {}
    found = plan(tmp_path, example(), cards, {"DEVICE": device, **said})
    on_cards = device == "auto" and bool(cards)
    told = [key for key, _ in found.unused if "n_gpu_layers" in key.lower()]
    assert told == ([] if on_cards else [variable or "llamacpp.n_gpu_layers"])
    assert ("40" in found.command.words) == (on_cards and bool(variable))


OF_CARDS = {
    "gpu.num_gpus": 2,
    "gpu.tensor_parallel_size": 2,
    "gpu.device_ids": [0, 1],
    "gpu.gpu_memory_fraction": 0.5,
    "llamacpp.n_gpu_layers": 7,
    "llamacpp.split_mode": "row",
    "llamacpp.tensor_split": [1.0, 1.0],
    "llamacpp.main_gpu": 0,
    "llamacpp.cpu_moe": True,
}


def test_what_is_about_cards_is_in_vain_on_a_cpu_and_changes_nothing_there(tmp_path: Path) -> None:
    blocks: dict[str, dict[str, Any]] = {
        "gpu": {},
        "llamacpp": {"hf_filename": "m.gguf", "hf_repo_id": "a/b"},
    }
    without = {"backend": "llamacpp", "model_id": "m", **blocks}
    fields: dict[str, Any] = yaml.safe_load(yaml.safe_dump(without))
    for key, value in OF_CARDS.items():
        block, _, name = key.partition(".")
        fields[block][name] = value
    told = plan(tmp_path, fields, ())
    assert {key for key, _ in told.unused} == set(OF_CARDS)
    assert told.command.words == plan(tmp_path, without, ()).command.words
    on_cards = plan(tmp_path, fields)
    assert {key for key, _ in on_cards.unused} == {"gpu.num_gpus", "gpu.tensor_parallel_size"}


@pytest.mark.parametrize(
    ("variable", "value", "in_vain"),
    [
        ("VRAM_BUDGET", "9GiB", True),
        ("CUDA_VISIBLE_DEVICES_OVERRIDE", "0", True),
        ("CUDA_VISIBLE_DEVICES_OVERRIDE", "-1", False),  # it is why it runs on the CPU
        ("N_GPU_LAYERS", "0", False),
    ],
)
def test_variables_about_cards_are_in_vain_on_a_cpu(
    variable: str, value: str, in_vain: bool, tmp_path: Path
) -> None:
    told = [key for key, _ in plan(tmp_path, example(), (), {variable: value}).unused]
    assert told.count(variable) == in_vain
    assert variable not in [key for key, _ in plan(tmp_path, example(), CARDS, {variable: value}).unused]


def test_a_key_that_a_variable_replaced_is_not_told_as_the_profiles(tmp_path: Path) -> None:
    found = plan(tmp_path, example(), CARDS, {"CONTEXT_SIZE": "4096", "LLAMACPP_PARALLEL_OVERRIDE": "2"})
    told = {key for key, _ in found.unused}
    assert not told & {"gpu.max_model_len", "gpu.max_concurrent_requests", "llamacpp.ctx_size"}


def test_what_the_example_says_in_vain(tmp_path: Path) -> None:
    found = dict(plan(tmp_path, ATLAS["profiles"][NAME]).unused)
    assert set(found) == {
        "gpu.num_gpus",
        "gpu.max_model_len",
        "gpu.max_concurrent_requests",
        "llamacpp.host",
        "llamacpp.port",
    }
    assert "PORT" in found["llamacpp.port"]
    assert "llamacpp.ctx_size (8192)" in found["gpu.max_model_len"]


def profile(block: dict[str, Any], gpu: dict[str, Any] | None = None, **top: Any) -> Profile:
    fields = {"hf_filename": "m.gguf", "hf_repo_id": "a/b", **block}
    return Profile.model_validate(
        {"name": "p", "backend": "llamacpp", "model_id": "m", "llamacpp": fields, "gpu": gpu or {}, **top}
    )


@pytest.mark.parametrize(
    ("made", "keys"),
    [
        (profile({}), []),
        (profile({"model_path": "/m.gguf"}), ["llamacpp.hf_filename", "llamacpp.hf_repo_id"]),
        (profile({"pooling": "mean"}), ["llamacpp.pooling"]),
        (profile({}, task_type="completion"), ["task_type"]),
        (profile({"image_hosts": ["a.b"]}), ["llamacpp.image_hosts"]),
        (profile({"mmproj_sha256": "0" * 64}), ["llamacpp.mmproj_sha256"]),
        (profile({"ubatch_size": 9}, {"max_batch_tokens": 5}), ["gpu.max_batch_tokens"]),
        (profile({"split_mode": "row"}, {"tensor_parallel_size": 1}), ["gpu.tensor_parallel_size"]),
        (profile({"split_mode": "none", "tensor_split": [1]}), ["llamacpp.tensor_split"]),
        (profile({"main_gpu": 0}), ["llamacpp.main_gpu"]),
        (profile({"main_gpu": 0, "split_mode": "none"}), []),
        (profile({}, transformers={"sources": ["embedded"]}), ["transformers"]),
        (profile({}, {"tensor_parallel_size": 2}, backend="transformers", transformers={"sources": ["e"]}),
         ["gpu.tensor_parallel_size", "llamacpp"]),
        (profile({}, {"gpu_memory_fraction": 0.5}, backend="transformers", transformers={"sources": ["e"]}),
         ["gpu.gpu_memory_fraction", "llamacpp"]),
        (profile({}, {"device_ids": [0, 1]}, backend="transformers", transformers={"sources": ["e"]}),
         ["gpu.device_ids", "llamacpp"]),
    ],
)  # fmt: skip
def test_keys_without_effect_and_no_others(made: Profile, keys: list[str]) -> None:
    found = unused(made)
    assert [key for key, _ in found] == keys
    assert all(why and "\n" not in why for _, why in found)


def test_settings_without_effect() -> None:
    environ = {"N_GPU_LAYERS": "4", "MEMORY_BUDGET": "1GiB", "MODEL_ID": "a/b", "PORT": "1"}
    settings = load(["--model_path", "/m", "--llama_server", "/l"], environ)
    over = Profile.model_validate(
        {"name": "p", "backend": "transformers", "model_id": "m", "transformers": {"sources": ["e"]}}
    )
    assert [name for name, _ in unused_settings(over, settings)] == [
        "MODEL_ID",
        "N_GPU_LAYERS",
        "--llama_server",
    ]
    assert [name for name, _ in unused_settings(profile({}), settings)] == ["MODEL_ID"]


@pytest.mark.parametrize(("cards", "in_vain"), [(CARDS, True), ((), False)])
def test_main_memory_is_the_limit_where_there_is_no_card(
    cards: tuple[GpuReading, ...], in_vain: bool, tmp_path: Path
) -> None:
    told = dict(plan(tmp_path, example(), cards, {"MEMORY_BUDGET": "9GiB"}).unused)
    assert ("MEMORY_BUDGET" in told) == in_vain
