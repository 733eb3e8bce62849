"""`llm-sidecar` as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar import weights
from sidecar.cli import COMMANDS, main
from tests.typed import typed

ROOT = Path(__file__).parents[2]


def started(*words: str, **environ: str) -> tuple[int, str, str]:
    """The same as `typed`, as a program."""
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        cwd=ROOT, env={"PATH": "/usr/bin:/bin", **environ}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_help_names_every_command() -> None:
    code, said, _ = started("--help")
    assert code == 0
    assert all(f"  {name} " in said for name in COMMANDS)
    assert typed()[0] == 64


@pytest.mark.parametrize("words", [(), ("profiles",), ("plan", "nobody"), ("check", "--fly")])
def test_the_program_does_what_its_main_function_does(words: tuple[str, ...]) -> None:
    assert started(*words) == typed(*words)


def test_an_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fly"]) == 64
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "'fly'" in said
    assert "doctor" in said


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_command_goes_by_the_name_that_was_typed(command: str) -> None:
    code, said, _ = typed(command, "--help")
    assert (code, said.startswith(f"usage: llm-sidecar {command} ")) == (0, True)
    assert ("NAME" in said.split()) == (command in ("plan", "download", "check"))
    code, _, said = typed(command, "--fly")
    assert (code, said.startswith(f"llm-sidecar {command}: ")) == (64, True)


def test_a_profile_is_named_before_the_flags_or_after_them(tmp_path: Path) -> None:
    place = f"--cache_dir={tmp_path}"
    for words in ([place, "stheno-q4_k_m"], ["stheno-q4_k_m", place]):
        code, _, said = typed("check", *words)
        assert (code, "`llm-sidecar download stheno-q4_k_m` fetches it" in said) == (66, True)
    code, _, said = typed("check", "stheno-q4_k_m", "--profile", "embedded")
    assert (code, said.count("\n")) == (64, 1)
    assert "are two profiles; name one" in said


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_bad_value_is_one_line_and_78(command: str) -> None:
    code, _, said = typed(command, VRAM_BUDGET="11")
    assert (code, said.count("\n")) == (78, 1)


def test_download_of_the_embedded_model_says_where_it_is() -> None:
    code, said, _ = typed("download")
    assert code == 0
    assert str(ROOT / "sidecar" / "embedded" / "model") in said


def test_download_of_what_is_nowhere_says_why() -> None:
    code, _, said = started("download", MODEL_ID="nobody/nothing", HF_HUB_OFFLINE="1")
    assert code == 66
    assert "nobody/nothing" in said
    assert "Traceback" not in said


def _cached(root: Path, repository: str, commit: str) -> Path:
    """A hub cache with one model in it, as the hub's client lays it out."""
    model = root / "hub" / f"models--{repository.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    folder = model / "snapshots" / commit
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text(json.dumps({}))
    return folder


def test_a_model_that_the_image_carries_is_taken_before_any_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789" * 4
    folder = _cached(tmp_path, "owner/second", commit)
    monkeypatch.setenv("PRELOADED_MODELS", str(tmp_path))
    found = weights.find(["owner/first", "owner/second"], lambda *_: None)
    assert found == folder
    assert weights.title(found) == "owner/second@0123456"
    assert weights.find(["embedded"], lambda *_: None).name == "model"
