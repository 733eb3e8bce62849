"""A report, and two of them side by side, as a person reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sidecar.bench.figures import SHARES, TIMES, compare, differences
from sidecar.budget import MIB
from sidecar.named_rows import DIM, named_rows

# Above this the client may be what limits: its events wait for it.
BUSY = 0.7


def show(console: Console, report: Mapping[str, Any]) -> None:
    """The figures, the percentiles, and what went wrong."""
    console.print(named_rows(_rows(report)))
    if report["succeeded"]:
        console.print(_times(report))
    for kind, found in report["errors"].items():
        console.print(Text(f"{found['count']} times {kind}: {found['first']}", "bold red"))
    if (share := report["client_cpu_s"] / report["seconds"]) > BUSY:
        console.print(Text(f"this client kept a core {share:.0%} busy: it may be what limits", "yellow"))


def _rows(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "server", f"{report['url']}, model {report['model'] or 'not named'}"
    yield (
        "load",
        f"{report['requests']} requests, {report['concurrency']} at once, "
        f"{report['max_tokens']} tokens at most",
    )
    failed = f", {report['failed']} failed" if report["failed"] else ""
    yield "answers", f"{report['succeeded']} complete{failed}, in {report['seconds']:.3g} s"
    if report["tokens_counted_by"]:
        yield "tokens", f"{report['tokens']}, counted by {report['tokens_counted_by']}"
        yield "tokens/s", f"{report['tokens_per_s']:.4g} of all requests together"
    if report["peak_vram_bytes"] is None:
        yield "peak VRAM", "not visible from here"
    else:
        yield "peak VRAM", f"{report['peak_vram_bytes'] / MIB:.0f} MiB, of whole cards"


def _times(report: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=DIM)
    table.add_column("", style=DIM, no_wrap=True)
    columns = [*SHARES, "mean", "max"]
    for name in columns:
        table.add_column(name, justify="right")
    for name, title in TIMES.items():
        if spread := report[name]:
            table.add_row(title, *(seconds(spread[column]) for column in columns))
    return table


def show_compared(
    console: Console, names: tuple[str, str], a: Mapping[str, Any], b: Mapping[str, Any]
) -> None:
    """Each figure of both, and what B is against A."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=DIM)
    for letter, name in zip("AB", names, strict=True):
        console.print(Text(f"{letter}: {name}", DIM))
    for title in ("", "A", "B", "B is"):
        table.add_column(title, justify="left" if title in ("", "B is") else "right", no_wrap=True)
    for title, row in compare(a, b).items():
        style = {"the same": DIM}.get(row["b_is"], "green" if row["ratio"] > 1 else "red")
        cells = (_figure(title, row["a"]), _figure(title, row["b"]))
        table.add_row(Text(title, DIM), *cells, Text(row["b_is"], style))
    console.print(table)
    for line in differences(a, b):
        console.print(Text(f"not the same load: {line}", "yellow"))


def _figure(title: str, value: float) -> str:
    if title == "tokens/s":
        return f"{value:.4g}"
    return f"{value / MIB:.0f} MiB" if title == "peak VRAM" else seconds(value)


def seconds(value: float) -> str:
    """Three digits that count, in ms below a second."""
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"
