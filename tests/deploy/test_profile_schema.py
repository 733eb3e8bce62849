"""The editors' schema is the code's, and what is shipped is valid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tools.profile_schema import SCHEMA, text

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "config" / "llm_profiles.yaml"
ATLAS = ROOT / "tests" / "core" / "atlas.yaml"
VALIDATOR = Draft202012Validator(json.loads(SCHEMA.read_text()))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_the_file_is_the_codes() -> None:
    assert SCHEMA.read_text() == text(), "run `python -m tools.profile_schema`"
    Draft202012Validator.check_schema(json.loads(text()))


def test_editors_find_it() -> None:
    assert SHIPPED.read_text().startswith(f"# yaml-language-server: $schema={SCHEMA.name}\n")
    assert SCHEMA.parent == SHIPPED.parent


@pytest.mark.parametrize("path", [SHIPPED, ATLAS], ids=lambda path: path.name)
def test_registries_are_valid(path: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(read(path))] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("threads", "4"),
        ("ctxsize", 1),
        ("port", 70000),
        ("split_mode", "rows"),
        ("sha256", "abc"),
        ("parallel", 0),
    ],
)
def test_what_the_code_refuses_the_schema_refuses(key: str, value: Any) -> None:
    found = read(ATLAS)
    found["profiles"]["deepseek-70b-gguf-atlas"]["llamacpp"][key] = value
    assert not VALIDATOR.is_valid(found)


def test_the_switch_of_flash_attention_may_be_bare() -> None:
    found = read(ATLAS)
    block = found["profiles"]["deepseek-70b-gguf-atlas"]["llamacpp"]
    for value in ("on", "auto", True, False):
        block["flash_attn"] = value
        assert VALIDATOR.is_valid(found)
    block["flash_attn"] = "maybe"
    assert not VALIDATOR.is_valid(found)
