"""A model that does not fit is not fetched: the headers on the hub say so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e.program import free_port
from tests.engines.llama.driving import fake
from tests.engines.llama.small_gguf import KINDS, Sizes, write
from tests.weights.eight_b import files
from tests.weights.machine import Machine

REPO, NAME = "owner/Small-GGUF", "small.Q8_0.gguf"


@pytest.fixture
def machine(machine: Machine) -> Machine:
    """With a model of 9 MB on the hub, and a registry that names it."""
    path = write(KINDS["dense"], machine.folder / NAME)
    machine.hub.add(REPO, {NAME: path.read_bytes()})
    path.unlink()
    registry = machine.folder / "profiles.yaml"
    registry.write_text(f"""
profiles:
  small:
    backend: llamacpp
    model_id: small
    gpu: {{max_model_len: 4096, max_concurrent_requests: 4}}
    llamacpp: {{hf_repo_id: {REPO}, hf_filename: {NAME}, model_root: {machine.folder}/gguf}}
""")
    machine.environ |= {
        "LLM_PROFILES_CONFIG_PATH": str(registry),
        "LLM_PROFILE_NAME": "small",
        "LLAMA_SERVER_PATH": fake(),
        "PORT": str(free_port()),
    }
    return machine


def test_nothing_but_its_header_is_fetched(machine: Machine) -> None:
    code, said, log = machine.typed(sys.executable, "server.py", MEMORY_BUDGET="64MiB")
    assert code == 78, (said, log)
    assert "profile small does not fit: keys and values of 4 requests of 4096 tokens" in said, log
    assert not list(machine.folder.rglob("*.gguf*"))
    blob = machine.hub.repositories[REPO].commits[machine.hub.commit(REPO)][NAME]
    assert blob.ranges
    assert all(asked and asked.startswith("bytes=") for asked in blob.ranges)


def test_main_memory_is_a_limit_of_its_own(machine: Machine) -> None:
    """No budget is set, and no machine has the memory that these contexts take."""
    path = write(Sizes(context=250_000), machine.folder / NAME)
    machine.hub.add(REPO, {NAME: path.read_bytes()})
    path.unlink()
    wanted = {"N_CTX": "250000", "LLAMACPP_PARALLEL_OVERRIDE": "1024"}
    code, said, log = machine.typed(sys.executable, "server.py", **wanted)
    assert code == 78, (said, log)
    assert "profile small does not fit: keys and values of 1024 requests of 250000 tokens" in said
    assert "at once or a machine with " in said
    assert not list(machine.folder.rglob("*.gguf*"))
    code, said, _ = machine.typed(sys.executable, "-m", "sidecar", "plan", **wanted)
    assert (code, "Here: does not fit, " in said) == (78, True)


def test_what_fits_is_fetched_and_served(machine: Machine, tmp_path: Path) -> None:
    code, said, log = machine.typed(sys.executable, "-m", "sidecar", "warm", MEMORY_BUDGET="256MiB")
    assert code == 0, (said, log)
    assert {path.name for path in machine.folder.rglob("*.gguf")} == {NAME}


def test_nor_is_a_transformers_model(machine: Machine) -> None:
    named, size_bytes = files()
    machine.hub.add("owner/Llama-8B", named)["model.safetensors"].claimed_bytes = size_bytes
    registry = Path(machine.environ["LLM_PROFILES_CONFIG_PATH"])
    registry.write_text("""
profiles:
  small: {backend: transformers, model_id: small, transformers: {sources: [owner/Llama-8B]}}
""")
    code, said, log = machine.typed(sys.executable, "server.py", MEMORY_BUDGET="8GiB")
    assert code == 78, (said, log)
    assert "does not fit: process " in said
    assert "weights alone are" in log
    assert not list(machine.cache.rglob("*.safetensors"))
