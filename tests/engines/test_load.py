"""What is loaded, and what is refused before anything reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from sidecar import weights
from sidecar.errors import ConfigError, StartError, WeightsDamaged, WeightsMissing
from sidecar.worker import load as loading
from sidecar.worker.messages import WorkerConfig
from sidecar.worker.model import Model
from tests.engines.conftest import config


def load(folder: Path, **changes: object) -> Model:
    return loading.load(config(folder, **changes), lambda *_: None)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """The tiny checkpoint, free to be spoiled."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def edit(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refused(kind: type[StartError], folder: Path, words: str, **changes: object) -> None:
    with pytest.raises(kind) as error:
        load(folder, **changes)
    assert words in error.value.message
    assert "\n" not in error.value.message


def test_code_of_its_own(copy: Path) -> None:
    edit(copy, auto_map={"AutoModel": "evil.Model"})
    refused(ConfigError, copy, "code of its own (auto_map")


def test_pickles(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04")
    refused(ConfigError, copy, "pickled weights (pytorch_model.bin)")


def test_no_config(tmp_path: Path) -> None:
    refused(WeightsMissing, tmp_path, "no config.json")


def test_a_config_that_is_not_json(copy: Path) -> None:
    (copy / "config.json").write_text("<html>")
    refused(WeightsDamaged, copy, "is not JSON")


def test_a_truncated_file(copy: Path) -> None:
    file = copy / "model.safetensors"
    whole = file.stat().st_size
    with file.open("r+b") as stream:
        stream.truncate(whole - 100)
    refused(WeightsDamaged, copy, f"has {whole - 100} of {whole} bytes")


def test_an_error_page_in_place_of_weights(copy: Path) -> None:
    (copy / "model.safetensors").write_text("<html>not found</html>" * 10)
    refused(WeightsDamaged, copy, "not a safetensors file")


def test_a_file_without_one_of_the_tensors(copy: Path) -> None:
    file = copy / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    refused(WeightsDamaged, copy, "lacks 1 tensors that its config.json names")


def test_a_config_that_is_a_list(copy: Path) -> None:
    (copy / "config.json").write_text("[]")
    refused(WeightsDamaged, copy, "holds no JSON object")


def test_an_old_gptq_folder_says_so_in_a_file_of_its_own(copy: Path) -> None:
    (copy / "quantize_config.json").write_text(json.dumps({"bits": 8, "group_size": 128, "sym": True}))
    refused(ConfigError, copy, "has 8 bits; on a CPU GPTQ is served with 4")


def test_only_the_files_of_the_index_count(copy: Path) -> None:
    whole = weights.stored_mib(copy)
    shutil.copy(copy / "model.safetensors", copy / "consolidated.safetensors")
    assert weights.stored_mib(copy) == pytest.approx(2 * whole)
    index = {"weight_map": {"lm_head.weight": "model.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weights.stored_mib(copy) == whole


def test_an_architecture_that_was_never_tested(copy: Path) -> None:
    edit(copy, architectures=["GemmaForCausalLM"])
    refused(ConfigError, copy, "GemmaForCausalLM; this engine is tested with LlamaForCausalLM")


def test_rotary_embeddings_that_depend_on_the_batch(copy: Path) -> None:
    edit(copy, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0})
    refused(ConfigError, copy, "'dynamic' rotary embeddings")


def test_a_context_the_model_was_not_made_for(folder: Path) -> None:
    refused(ConfigError, folder, "CONTEXT_SIZE is 1024", context=1024)


def test_a_context_that_nobody_asked_for_is_cut_to_the_models(folder: Path) -> None:
    made = loading.load(config(folder, context=1024, context_asked=False), lambda *_: None)
    assert made.plan.context == 512


def test_cuda_where_there_is_none(folder: Path) -> None:
    refused(ConfigError, folder, "DEVICE is cuda but torch sees no CUDA device", device="cuda")


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_bitsandbytes_on_a_cpu(folder: Path, bits: str) -> None:
    refused(ConfigError, folder, f"load_in_{bits} uses bitsandbytes, which needs CUDA", quantization=bits)


def test_a_budget_that_is_too_small(make_checkpoint: Callable[..., Path]) -> None:
    wide = make_checkpoint("llama", intermediate_size=4096)
    refused(ConfigError, wide, "MiB is more than 7 MiB (92% of the budget of 8)", memory_budget_mib=8)
    refused(
        ConfigError, wide, " + weights 6 + workspace 3 + one context of 256 tokens 0", memory_budget_mib=8
    )


def test_every_source_that_failed_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing) as error:
        weights.find([str(tmp_path / "nowhere")], lambda *_: None)
    assert "nowhere: no such folder" in error.value.message
    assert "MODEL_PATH" in error.value.message


def test_plain_safetensors_are_loaded_in_float32_on_a_cpu(folder: Path) -> None:
    about = dict(load(folder).about)
    assert about["dtype"].startswith("float32")
    assert about["weights"].startswith("as stored")


def test_the_pool_has_what_the_plan_says(make_checkpoint: Callable[..., Path]) -> None:
    model = load(make_checkpoint("llama"))
    assert model.plan.kv_tokens == 2048
    # One page more than planned belongs to nobody.
    assert tuple(model.pool.keys[0].shape) == (2048 // 16 + 1, 16, 2, 16)


def test_the_embedded_checkpoint_is_loaded_with_a_kernel_for_this_device() -> None:
    made = loading.load(
        WorkerConfig(
            sources=("embedded",), context=2048, slots=4, batch_tokens=256, kv_tokens=4096,
            default_max_tokens=64, device="cpu", threads=1,
        ),
        lambda *_: None,
    )  # fmt: skip
    assert dict(made.about)["weights"].startswith("gptq, TorchFused")
    kinds = {type(module).__name__ for module in made.network.modules()}
    assert "TorchFusedLinear" in kinds
