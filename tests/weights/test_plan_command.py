"""`llm-sidecar plan` of models that are not here: their headers come over the line, and nothing else."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.weights.eight_b import files
from tests.weights.machine import Machine

REPO = "owner/Llama-8B"


@pytest.fixture
def machine(machine: Machine) -> Machine:
    """With an 8B on the hub, and a registry that serves it in three ways."""
    named, size_bytes = files()
    blobs = machine.hub.add(REPO, named)
    blobs["model.safetensors"].claimed_bytes = size_bytes
    ways = {"eight-16": "none", "eight-8bit": "8bit", "eight-gptq": "gptq"}
    estimated = {"eight-16": 17000, "eight-8bit": 9772, "eight-gptq": 7332}
    profiles = {
        name: {
            "backend": "transformers", "model_id": name, "vram_mib": estimated[name],
            "gpu": {"max_model_len": 6144, "max_batch_tokens": 512, "max_concurrent_requests": 4},
            "transformers": {"sources": [REPO], "quantization": quantization},
        }
        for name, quantization in ways.items()
    }  # fmt: skip
    path = machine.folder / "profiles.yaml"
    path.write_text(json.dumps({"profiles": profiles}))
    machine.environ["LLM_PROFILES_CONFIG_PATH"] = str(path)
    return machine


def plan(machine: Machine, *words: str, code: int = 0) -> str:
    found, said, log = machine.typed(sys.executable, "-m", "sidecar", "plan", *words)
    assert found == code, (said, log)
    assert "Traceback" not in log
    return said


def data(machine: Machine, *words: str, code: int = 0) -> Any:
    return json.loads(plan(machine, *words, "--json", code=code))


def test_the_seeds_numbers_collide_and_the_plan_says_so(machine: Machine) -> None:
    """8 bits, 6144 tokens, 10.5 GiB: weights of 8.5 GiB and half of the embeddings leave no request."""
    ((found,),) = [one["plans"] for one in data(machine, "eight-8bit", "--vram", "10.5GiB", code=78)]
    assert found["fits"] is False
    assert found["weights_mib"] == pytest.approx(8660, rel=0.01)
    assert found["kv_bytes_per_token"] == 128 * 1024
    context, other, budget = found["changes"]
    assert (context.rpartition(" ")[0], other, budget.split()[-1]) == ("a context of", "eight-gptq", "MiB")
    assert "does not fit" in found["sentence"]


def test_a_table_of_profiles_by_cards(machine: Machine) -> None:
    rows = {one["profile"]: one["plans"] for one in data(machine, "--vram", "8GiB,12GiB,24GiB")}
    assert [p["fits"] for p in rows["eight-16"]] == [False, False, True]
    assert [p["fits"] for p in rows["eight-8bit"]] == [False, True, True]
    assert [p["fits"] for p in rows["eight-gptq"]] == [True, True, True]
    requests = [p["requests"] for p in rows["eight-gptq"]]
    assert requests == sorted(requests)
    said = plan(machine, "--vram", "8GiB,12GiB,24GiB")
    head, *lines = said.splitlines()
    assert head.split() == ["profile", "8", "GiB", "12", "GiB", "24", "GiB"]
    assert [line.split()[0] for line in lines[:3]] == list(rows)
    assert "eight-16 in 8192 MiB: use eight-gptq or a budget of" in said


def test_only_headers_are_fetched(machine: Machine) -> None:
    plan(machine, "eight-gptq", "--vram", "12GiB")
    blob = machine.hub.repositories[REPO].commits[machine.hub.commit(REPO)]["model.safetensors"]
    assert all(asked and asked.startswith("bytes=") for asked in blob.ranges)
    assert not machine.cache.exists() or not list(machine.cache.rglob("model.safetensors"))


def test_the_picture_has_every_part_and_the_sentence(machine: Machine) -> None:
    said = plan(machine, "eight-gptq", "--vram", "12GiB")
    for part in ("weights", "workspace", "CUDA context", "keys and values", "margin", "fits: "):
        assert part in said
    assert "does not fit: weights alone are" in plan(machine, "eight-16", "--vram", "12GiB", code=78)


def test_a_hub_that_is_not_there_costs_one_wait_and_the_written_figure_stands(machine: Machine) -> None:
    machine.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
    rows = data(machine, "--vram", "8GiB,12GiB")
    assert {one["plans"][0]["vram_mib"] for one in rows} == {17000, 9772, 7332}
    assert "hub could not be reached" in rows[-1]["plans"][0]["why"]
    assert "7.2 GiB *" in plan(machine, "--vram", "8GiB,12GiB")


@pytest.mark.parametrize("text", ["12", "-1GiB", "lots"])
def test_what_is_no_size(machine: Machine, text: str) -> None:
    found, _, log = machine.typed(sys.executable, "-m", "sidecar", "plan", f"--vram={text}")
    assert found == 78
    assert "sizes with a unit" in log
    assert len(log.strip().splitlines()) == 1
