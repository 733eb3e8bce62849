"""`llm-sidecar download` and `check` with GGUF profiles, and the scripts in front of them."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

from sidecar.embedded import GGUF_Q4_0
from tests.weights.machine import ROOT, Machine

MODEL = GGUF_Q4_0.read_bytes()
SUM = hashlib.sha256(MODEL).hexdigest()
REPO, NAME = "owner/model-GGUF", "model-Q4_0.gguf"


def sidecar(machine: Machine, *words: str, **environ: str) -> tuple[int, str, str]:
    return machine.typed(sys.executable, "-m", "sidecar", *words, **environ)


def with_profiles(machine: Machine, **names: str) -> None:
    """A registry of GGUF profiles of REPO, each with its file."""
    profiles = {
        name: {
            "backend": "llamacpp",
            "model_id": name,
            "llamacpp": {"hf_repo_id": REPO, "hf_filename": file},
        }
        for name, file in names.items()
    }
    path = machine.folder / "profiles.yaml"
    path.write_text(json.dumps({"profiles": profiles}))
    machine.environ["LLM_PROFILES_CONFIG_PATH"] = str(path)


def test_download_by_name_and_check_of_what_came(machine: Machine) -> None:
    machine.hub.add(REPO, {NAME: MODEL})
    with_profiles(machine, mine=NAME)
    code, _, said = sidecar(machine, "check", "mine")
    assert code == 66
    assert NAME in said
    assert machine.hub.requests == []
    code, said, log = sidecar(machine, "download", "mine")
    assert code == 0, log
    assert str(machine.cache) in said
    asked = len(machine.hub.requests)
    code, said, log = sidecar(machine, "check", "mine")
    assert code == 0, log
    assert "whole, its SHA-256 is right" in said
    assert len(machine.hub.requests) == asked


def test_check_names_no_command_that_fetches_nothing(machine: Machine) -> None:
    """A file that was given comes from nowhere; one of the profile comes by the profile's own name."""
    with_profiles(machine, mine=NAME)
    code, _, said = sidecar(machine, "check", "mine")
    assert (code, "`llm-sidecar download mine` fetches it" in said) == (66, True)
    for words in (("check",), ("check", "mine")):
        code, _, said = sidecar(machine, *words, MODEL_PATH=str(machine.folder / "none.gguf"))
        assert (code, said.count("\n")) == (66, 1)
        assert "is not there. Give the path of a .gguf file." in said
        assert "download" not in said


def test_check_finds_one_wrong_byte_although_the_sum_was_right_before(machine: Machine) -> None:
    machine.hub.add(REPO, {NAME: MODEL})
    with_profiles(machine, mine=NAME)
    sidecar(machine, "download", "mine")
    blob = machine.cache / "models--owner--model-GGUF" / "blobs" / SUM
    blob.write_bytes(MODEL[:-1] + bytes([MODEL[-1] ^ 1]))
    code, _, said = sidecar(machine, "check", "mine")
    assert code == 65
    assert SUM in said


@pytest.mark.parametrize("profile", ["embedded", "embedded-gguf"])
def test_the_embedded_models_need_nothing(machine: Machine, profile: str) -> None:
    assert sidecar(machine, "download", profile)[0] == 0
    code, said, _ = sidecar(machine, "check", profile)
    assert code == 0
    assert "whole" in said
    assert machine.hub.requests == []


def test_doctor_and_plan_say_where_the_file_is(machine: Machine) -> None:
    machine.hub.add(REPO, {NAME: MODEL})
    with_profiles(machine, mine=NAME)
    assert f"comes from {REPO}" in sidecar(machine, "doctor", "--profile", "mine", "--port", "0")[1]
    sidecar(machine, "download", "mine")
    assert "its file is here" in sidecar(machine, "doctor", "--profile", "mine", "--port", "0")[1]
    commit = machine.hub.commit(REPO)
    assert f"{commit}/{NAME}" in "".join(sidecar(machine, "plan", "mine")[1].split())


# --- the scripts --------------------------------------------------------------------------------


def script(machine: Machine, name: str, *words: str) -> tuple[int, str, str]:
    return machine.typed(str(ROOT / "scripts" / name), *words, LLM_SIDECAR=f"{sys.executable} -m sidecar")


@pytest.mark.parametrize(
    ("words", "profile"),
    [
        (("stheno", "Q4_K_M"), "stheno-q4_k_m"),
        (("stheno",), "stheno-q4_k_m"),
        (("lumimaid", "q6_k"), "lumimaid-q6_k"),
    ],
)
def test_download_model_names_a_profile(machine: Machine, words: tuple[str, ...], profile: str) -> None:
    machine.hub.add(REPO, {NAME: MODEL})
    with_profiles(machine, **{profile: NAME, "other": "other.gguf"})
    code, said, log = script(machine, "download_model.sh", *words)
    assert code == 0, log
    assert said.splitlines()[-1].startswith(f"{profile}: ")


@pytest.mark.parametrize(
    "words", [(), ("--help",), ("hermes", "Q4_K_M"), ("stheno", "Q9"), ("stheno", "Q4_K_M", "more")]
)
def test_download_model_says_what_it_takes(machine: Machine, words: tuple[str, ...]) -> None:
    code, said, log = script(machine, "download_model.sh", *words)
    assert code == (0 if words == ("--help",) else 64)
    for word in ("stheno", "lumimaid", "Q4_K_M", "Q5_K_M", "Q6_K"):
        assert word in said + log
    assert machine.hub.requests == []


def test_download_model_of_the_vision_service(machine: Machine) -> None:
    machine.hub.add(REPO, {NAME: MODEL})
    with_profiles(machine, **{"qwen3-vl-30b": NAME})
    code, said, log = script(machine, "download-model.sh")
    assert code == 0, log
    assert said.splitlines()[-1].startswith("qwen3-vl-30b: ")
    assert script(machine, "download-model.sh", "more")[0] == 64


def test_the_shipped_registry_has_what_the_scripts_name() -> None:
    known = (ROOT / "config" / "llm_profiles.yaml").read_text()
    for name in ("stheno", "lumimaid"):
        for quantisation in ("q4_k_m", "q5_k_m", "q6_k"):
            assert f"\n  {name}-{quantisation}:\n" in known
    assert "\n  qwen3-vl-30b:\n" in known


def test_the_image_has_the_hubs_command_under_both_names(machine: Machine) -> None:
    front = ROOT / "docker" / "huggingface-cli"
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    assert "docker/huggingface-cli" in dockerfile
    bin_folder = str(Path(sys.executable).parent)
    machine.hub.add(REPO, {NAME: MODEL})
    code, said, log = machine.typed(str(front), "download", REPO, NAME, PATH=f"{bin_folder}:/usr/bin:/bin")
    assert code == 0, log
    assert (machine.cache / "models--owner--model-GGUF" / "refs" / "main").is_file()
    assert NAME in said + log
