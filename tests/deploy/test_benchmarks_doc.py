"""The tables of docs/benchmarks.md are those of docs/benchmarks.json, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools.bench import report
from tools.bench.figures import Point

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return json.loads((DOCS / "benchmarks.json").read_text("utf-8"))


def test_the_document_shows_the_results(results: dict[str, Any]) -> None:
    document = (DOCS / "benchmarks.md").read_text("utf-8")
    assert report.replace(document, report.render(results)) == document


def test_every_figure_follows_from_its_raw_pairs(results: dict[str, Any]) -> None:
    for kept in [*results["points"], *results["llama"]["points"]]:
        ours, theirs = zip(*kept["raw"], strict=True)
        less = kept["unit"] in ("s", "ms", "us", "MiB")
        made = Point(kept["table"], kept["what"], kept["unit"], ours, theirs, kept["wanted"], less).as_json()
        assert made["ours"] == pytest.approx(kept["ours"], rel=1e-3)
        assert made["ratio"] == pytest.approx(kept["ratio"], rel=2e-3)
        assert made["pairs"] == kept["pairs"]


def test_a_point_that_falls_short_is_explained(results: dict[str, Any]) -> None:
    document = (DOCS / "benchmarks.md").read_text("utf-8")
    _, _, prose = document.partition(report.END)
    assert "## Points that fall short" in prose
    points = [*results["points"], *results["llama"]["points"]]
    missed = {point["table"] for point in points if point["met"] is False}
    assert all(f"`{table}`" in prose for table in missed)


def test_a_ratio_says_how_many_times_better() -> None:
    slower = Point("start", "x", "s", [2.0], [1.0], 1.0, less_is_better=True).as_json()
    faster = Point("speed", "x", "tokens/s", [2.0, 3.0, 9.0], [1.0, 1.0, 1.0], 3.0).as_json()
    assert (slower["ratio"], slower["met"]) == (0.5, False)
    assert (faster["ratio"], faster["ratio_range"], faster["met"]) == (3.0, [2.0, 9.0], True)


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="no markers"):
        report.replace("# Benchmarks", "tables")
