"""The tables of docs/metrics.md, from the names that the code has: `python -m tools.metrics_doc`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sidecar import metric_names, vllm_names
from sidecar.metric_names import Metric

DOCUMENT = Path(__file__).parents[1] / "docs" / "metrics.md"
GROUPS: dict[str, tuple[Metric, ...]] = {
    "own": metric_names.OWN,
    "vllm": vllm_names.VLLM,
    "seed": metric_names.SEED,
    "process": metric_names.PROCESS,
}


def table(metrics: Iterable[Metric]) -> str:
    """One row for each name, in the table's order."""
    lines = ["| name | type | labels | unit | meaning | for example |", "|---|---|---|---|---|---|"]
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        cells = (f"`{metric.name}`", metric.kind, labels, metric.unit, metric.text, f"`{metric.query}`")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def with_tables(document: str) -> str:
    """The document with the tables between its markers made anew. Raises ValueError without markers."""
    for name, metrics in GROUPS.items():
        begin, end = f"<!-- table: {name} -->\n", f"<!-- end: {name} -->\n"
        before, found, rest = document.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"there are no markers for the table {name}")
        document = f"{before}{begin}\n{table(metrics)}\n{end}{after}"
    return document


def main() -> int:
    """Write the tables."""
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text("utf-8")), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
