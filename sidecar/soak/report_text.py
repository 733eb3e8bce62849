"""The report as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from sidecar.named_rows import DIM, named_rows
from sidecar.soak.report import Report, as_json, health
from sidecar.soak.slope import Slope

YES = {True: ("yes", "green"), False: ("no", "bold red"), None: ("not known", DIM)}
VERDICTS = {"NO LEAK": "green", "LEAK": "bold red", "TOO SHORT TO SAY": "yellow"}


def show(console: Console, report: Report) -> None:
    """A table, then what is not well."""
    console.print(named_rows(_rows(report)))
    for failure in report.failures:
        console.print(Text(f"not well: {failure}", "bold red"))


def _rows(report: Report) -> Iterator[tuple[str, Text | str]]:
    told, tally, sizes = as_json(report), report.tally, report.sizes
    yield "load", f"{tally.requests} requests in {report.seconds:.0f} s, {told['tokens_per_s']:.0f} tokens/s"
    yield "outcomes", ", ".join(f"{kind} {count}" for kind, count in told["outcomes"].items())
    yield "failed for memory", str(report.failed_for_memory)
    if tally.running:
        slots = "" if sizes.slots is None else f" of {sizes.slots}"
        yield "on average", f"{told['running_mean']} run{slots}, {told['waiting_mean']} wait"
    share = told["kv_reserved_share"]
    yield "KV tokens reserved", "not told by this sidecar" if share is None else f"{share:.0%} on average"
    yield "high-water mark", _high_water(report)
    yield "never above the budget", _budget(report)
    if report.plan_error_percent is not None:
        yield "plan", f"{sizes.plan_mib:.0f} MiB; {report.plan_error_percent:+.1f} % were used against it"
    for name, slope in report.slopes.items():
        if slope is not None:
            yield f"growth, {name}", _growth(slope)
    yield "verdict", Text(report.verdict, VERDICTS[report.verdict])
    probes = health(report)
    if report.health_ms:
        yield (
            "/health",
            f"p50 {probes['p50']} ms, p99 {probes['p99']} ms, worst {probes['max']} ms "
            f"of {probes['asked']} probes, {probes['failed']} without 200",
        )
    if tally.ran_s is not None and tally.waited_s is not None:
        yield "API process", f"ran {tally.ran_s:.1f} s, waited {tally.waited_s:.1f} s for a processor"


def _high_water(report: Report) -> str:
    tally = report.tally
    seen = {
        "card": max((mib for _, _, mib in tally.card), default=None),
        "engine": tally.engine_peak_mib,
        "API process": tally.sidecar_peak_mib,
    }
    found = [f"{name} {mib:.0f} MiB" for name, mib in seen.items() if mib]
    return ", ".join(found) or "not seen: no process id is known (--pid)"


def _budget(report: Report) -> Text:
    word, style = YES[report.within_budget]
    if report.sizes.budget_mib is None:
        return Text("no budget is set", DIM)
    return Text.assemble((word, style), f" ({report.sizes.budget_mib:.0f} MiB)")


def _growth(slope: Slope) -> str:
    short, long = slope.times(100), slope.times(1000)
    return (
        f"{short.middle:+.3f} MiB per 100 requests; per 1000 {long.middle:+.2f}, "
        f"with 95 % between {long.low:+.2f} and {long.high:+.2f}"
    )
