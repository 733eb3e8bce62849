"""`profiles` and `plan` on a machine with a card: a stand-in for the driver's library, one verdict."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.llama.driving import fake
from tests.fakes.nvml_library import compiled

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def card(library: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a machine with a card of 12 GiB."""
    script = tmp_path / "script"
    script.write_text("card GPU-1 1000 12288 0 0\n")
    environ = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": str(library), "NVML_SCRIPT": str(script)}
    return {**environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}


def llama_server(folder: Path, script: str) -> dict[str, str]:
    """A fake that has its script with it: of our environment it gets nothing that it does not need."""
    program = folder / "llama-server"
    program.write_text(f'#!/bin/sh\nFAKE_LLAMA="{script}" exec "{fake()}" "$@"\n')
    program.chmod(0o755)
    return {"LLAMA_SERVER_PATH": str(program)}


def told(environ: dict[str, str], *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("script", "environ", "verdict", "code"),
    [
        ("card", {}, "fits", 0),
        ("card", {"VRAM_BUDGET": "300MiB"}, "does not fit", 78),
        ("card", {"DEVICE": "cpu"}, "on the CPU", 0),
        ("card", {"DEVICE": "cpu", "MEMORY_BUDGET": "30MiB"}, "does not fit", 78),
        ("", {}, "on the CPU", 0),  # a build that uses no card
    ],
)
def test_the_list_and_the_plan_say_the_same(
    card: dict[str, str], script: str, environ: dict[str, str], verdict: str, code: int, tmp_path: Path
) -> None:
    asked = {
        **card,
        **llama_server(tmp_path, script),
        **environ,
        "LLM_PROFILE_NAME": "embedded-gguf",
        "N_CTX": "999999",
    }
    _, listed = told(asked, "profiles")
    assert re.search(rf"(?m)^\* +embedded-gguf .* GiB  {verdict} ", listed), listed
    found, plan = told(asked, "plan")
    assert found == code
    assert f"Here: {verdict}, " in plan
    sentence = "does not fit: " if code else "fits: 16 requests of 2048 tokens"
    assert f"\n  {sentence}" in plan


def test_a_figure_that_is_written_for_less_is_the_least(card: dict[str, str], tmp_path: Path) -> None:
    _, listed = told({**card, **llama_server(tmp_path, "card"), "N_CTX": "65536"}, "profiles")
    said = " ".join(listed.split())
    assert "hermes-3-8b-q4_k_m llamacpp 6.7 GiB not known 6828 of 10752 MiB at least" in said
    assert "qwen3-vl-30b llamacpp 19.6 GiB does not fit 20098 of 10752 MiB" in said
