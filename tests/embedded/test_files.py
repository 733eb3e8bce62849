"""The committed files are the ones that were measured, small, and free of pickles and paths."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from sidecar.embedded import GGUF_Q4_0, GGUF_Q8_0, HERE, MODEL_DIR, REPORT, SHA256SUMS
from tools.embedded_model.train import STEPS

FILES = sorted(path for path in HERE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
TEXTS = [path for path in FILES if path.suffix in {".json", ".jinja", ".py", ""}]


def test_checksums_cover_every_artefact_and_match() -> None:
    lines = [line.split("  ") for line in SHA256SUMS.read_text().splitlines()]
    listed = {name: digest for digest, name in lines}
    artefacts = [p for p in FILES if p.suffix != ".py" and p not in {SHA256SUMS, REPORT}]
    assert listed == {str(p.relative_to(HERE)): hashlib.sha256(p.read_bytes()).hexdigest() for p in artefacts}


def test_files_are_at_most_12_mb_together() -> None:
    assert sum(path.stat().st_size for path in FILES) <= 12_000_000


def test_no_file_can_run_code_when_loaded() -> None:
    assert not [path for path in FILES if path.suffix in {".bin", ".pt", ".pkl", ".pth"}]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_no_file_names_a_folder_of_the_machine_that_made_it(path: Path) -> None:
    assert not re.search(r"(?<![\w<:/])/(home|root|work|tmp|usr|opt)/", path.read_text())


def test_named_paths_exist() -> None:
    assert (MODEL_DIR / "model.safetensors").is_file()
    assert GGUF_Q8_0.read_bytes()[:4] == GGUF_Q4_0.read_bytes()[:4] == b"GGUF"


def test_both_ends_end_an_answer() -> None:
    tokenizer = json.loads((MODEL_DIR / "tokenizer.json").read_text())
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    ends = json.loads((MODEL_DIR / "generation_config.json").read_text())["eos_token_id"]
    assert set(ends) == {ids["<|im_end|>"], ids["<|endoftext|>"]}


def test_report_is_of_a_clean_training() -> None:
    report = json.loads(REPORT.read_text())
    assert report["held_out"] == {"questions": 200, "seed": 7, "equal_to_a_training_line": 0}
    assert report["training"]["steps"] == STEPS


def test_report_holds_the_shares() -> None:
    report = json.loads(REPORT.read_text())
    assert report["gptq"]["share_right"] >= 0.90
    assert report["fp32"]["share_right"] >= 0.95
