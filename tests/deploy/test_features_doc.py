"""docs/features.md names files, tests and commands, and those exist."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.deploy.named import ROOT, VARIABLE, unknown, variables

PAGE = (ROOT / "docs" / "features.md").read_text()
DOCUMENTS = [
    "GPTQ sidecar with a watchdog",
    "Two old cards behind a balancer",
    "Self-hosted transformers service",
    "Profile registry",
    "Source-built llama.cpp",
]
CELLS = ["feature", "here", "where", "held by", "reached by"]
NONE = "—"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def table(document: str) -> list[list[str]]:
    """The rows below the document's heading, without the two of the head."""
    section = PAGE.partition(f"\n## {document}\n")[2].partition("\n## ")[0]
    head, _, *rows = [cells(line) for line in section.splitlines() if line.startswith("|")]
    assert head == CELLS
    return rows


ROWS = [row for document in DOCUMENTS for row in table(document)]
WORDS = re.findall(r"(?m)^\| ([a-z]+) \|", PAGE.partition("\n## ")[0])[1:]


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@cache
def defined_in(file: str) -> frozenset[str]:
    """The tests that a file defines, read without importing it; none of a file that is not there."""
    if not (ROOT / file).is_file():
        return frozenset()
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    body = ast.parse((ROOT / file).read_text()).body
    return frozenset(node.name for node in body if isinstance(node, kinds) and node.name.startswith("test_"))


def test_each_document_has_a_table_and_there_is_no_other() -> None:
    assert re.findall(r"(?m)^## (.+)$", PAGE) == DOCUMENTS
    assert len(ROWS) == len(re.findall(r"(?m)^\| (?!feature)", PAGE.partition("\n## ")[2]))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_feature_stands_there_once(document: str) -> None:
    features = [row[0] for row in table(document)]
    assert sorted(features) == sorted(set(features))


def test_every_row_is_whole() -> None:
    for row in ROWS:
        assert len(row) == len(CELLS), row
        word = re.split(r"\W", row[1])[0]
        assert word in WORDS, row[1]
        assert word == "yes" or len(row[1]) > len(word) + 10, f"{row[0]}: the reason is missing"
        absent = word == "absent" and row[2:] == [NONE] * 3
        assert absent or all(map(named, row[2:])), row


def test_every_place_exists() -> None:
    missing = []
    for row in ROWS:
        for place in named(row[2]):
            path, _, name = place.partition(":")
            if not (ROOT / path).is_file() or name not in (ROOT / path).read_text():
                missing.append((row[0], place))
    assert missing == []


def test_every_test_exists() -> None:
    missing = []
    for row in ROWS:
        for said in named(row[3]):
            file, _, test = said.partition("::")
            if not re.fullmatch(r"tests/[\w/]+\.py", file) or test not in defined_in(file):
                missing.append((row[0], said))
    assert missing == []


def test_every_way_to_it_is_known() -> None:
    assert [(row[0], said) for row in ROWS for said in named(row[4]) if unknown(said)] == []


def test_every_variable_is_one() -> None:
    words = [(row[0], word) for row in ROWS for cell in row[:2] for word in named(cell)]
    said = [(feature, found[1]) for feature, word in words if (found := VARIABLE.fullmatch(word))]
    assert [one for one in said if one[1] not in variables()] == []


@pytest.mark.parametrize(
    "said",
    [
        "llm-sidecar fly", "llm-sidecar plan fly", "llm-sidecar serve --fly", "make fly", "GET /fly",
        "POST /health", "FLY=1", "FLY", "LLM_PROFILE_NAME=fly", "PORT=1 make fly", "llamacpp.fly", "fly",
        "docker compose up -d fly", "docker compose --profile fly up -d", "docker compose -f fly.yaml up",
        "docker compose -f docker/compose.orion.yaml up llm-sidecar", "docker exec fly ls",
        "docker build -f docker/fly.Dockerfile .", "python server.py --fly", "python -m watchdog --fly",
        "python fly.py", "./scripts/fly.sh", "curl http://localhost:8000/fly", "cp fly .env",
    ],
)  # fmt: skip
def test_what_is_not_there_is_found(said: str) -> None:
    assert unknown(said)
