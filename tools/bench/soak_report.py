"""What `--soak` measured, as a part of docs/benchmarks.md."""

from __future__ import annotations

from typing import Any

from tools.bench.soak import AGAINST, WANTED_HEALTH_MS, WANTED_SHARE, WANTED_SPEED

ENGINES = {"embedded-gguf": "llama-server", "embedded": "transformers"}
TITLE = "## Memory under the worst load"


def render(soak: dict[str, Any] | None) -> str:
    """The part; the same results give the same text."""
    if soak is None:
        return f"{TITLE}\n\nNot measured here: `python -m tools.bench --soak` fills this in."
    return "\n\n".join([TITLE, _about(soak), _runs(soak["runs"]), _speeds(soak["speed"])])


def _about(soak: dict[str, Any]) -> str:
    m = soak["machine"]
    return (
        f"`llm-sidecar soak` on the embedded model, contexts of {soak['context']} tokens; {soak['build']}; "
        f"measured {m['date']} on {m['cores']} cores of {m['cpu']}; others kept "
        f"{m['busy_by_others_cores']:.2f} cores busy. Growth is in MiB for 1000 requests, with its interval "
        "of 95 %. The API process answers `/health`: beside its probes stands for how long it ran, and for "
        "how long it could have run and had to wait for a processor."
    )


def _runs(runs: dict[str, Any]) -> str:
    rows = [
        "| | " + " | ".join(ENGINES[profile] for profile in runs) + " | wanted |",
        "|---|" + "---:|" * (len(runs) + 1),
    ]
    for name, cell, wanted in _lines():
        rows.append(f"| {name} | " + " | ".join(cell(run) for run in runs.values()) + f" | {wanted} |")
    return "\n".join(rows)


def _lines() -> list[tuple[str, Any, str]]:
    return [
        ("minutes, requests", lambda r: f"{r['seconds'] / 60:.0f}, {r['requests']}", ""),
        ("ended as", lambda r: ", ".join(f"{k} {n}" for k, n in r["outcomes"].items()), ""),
        ("failed for memory", lambda r: str(r["failed_for_memory"]), "0"),
        ("tokens/s", lambda r: f"{r['tokens_per_s']:.0f}", ""),
        ("high-water mark, engine", lambda r: f"{r['high_water_mib']:.0f} MiB", "within the budget"),
        ("`MEMORY_BUDGET`", lambda r: f"{r['budget_mib']:.0f} MiB", ""),
        ("plan, and its error", lambda r: f"{r['plan_mib']:.0f} MiB, {r['plan_error_percent']:+.1f} %", ""),
        ("KV tokens reserved, mean", lambda r: _share(r["kv_reserved_share"]), f"{WANTED_SHARE:.0%}"),
        ("growth, engine", lambda r: _growth(r["mib_per_1000_requests"]["engine"]), "below 1"),
        ("growth, API process", lambda r: _growth(r["mib_per_1000_requests"]["sidecar"]), "below 1"),
        ("verdict", lambda r: r["verdict"], "NO LEAK"),
        (
            "`/health` p50, p99, worst",
            lambda r: _probes(r["health_ms"]),
            f"p99 below {WANTED_HEALTH_MS:g} ms",
        ),
        (
            "API process ran, waited",
            lambda r: f"{r['sidecar_ran_s']:.0f} s, {r['sidecar_waited_for_processor_s']:.0f} s",
            "",
        ),
    ]


def _speeds(speeds: dict[str, dict[str, Any]] | None) -> str:
    if speeds is None:
        return "What reserving memory costs of the speed was not measured in this run."
    head = (
        "Tokens a second of the worker with more slots than contexts (`held`), against one where nobody who "
        "finds a slot waits for memory, since each has a context of its own: with as many slots and so twice "
        "the memory (`free`), or with the same memory and so half the slots (`even`):"
    )
    columns = (
        "against", "held", "the other", "held / other (range)", "run at once", "KV reserved", "wanted", "met",
    )  # fmt: skip
    rows = [f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(columns) - 1)]
    return "\n".join([head, "", *rows, *(_speed(name, found) for name, found in speeds.items())])


def _speed(name: str, found: dict[str, Any]) -> str:
    low, high = found["ratio_range"]
    held, other = (_median(found["raw"][pool]) for pool in ("held", name))
    running = found["running"]
    cells = [
        AGAINST[name].what,
        f"{held:.0f}",
        f"{other:.0f}",
        f"{found['ratio']:.2f} ({low:.2f} to {high:.2f})",
        f"{running['held']:.0f}, {running[name]:.0f}",
        _share(found["kv_reserved_share"]),
        f"{WANTED_SPEED:g}",
        "yes" if found["ratio"] >= WANTED_SPEED else "**no**",
    ]
    return f"| {' | '.join(cells)} |"


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _share(share: float | None) -> str:
    return "not told" if share is None else f"{share:.0%}"


def _growth(slope: dict[str, float] | None) -> str:
    return (
        "not known" if slope is None else f"{slope['slope']:.2f} ({slope['low']:.2f} to {slope['high']:.2f})"
    )


def _probes(health: dict[str, float]) -> str:
    return f"{health['p50']} ms, {health['p99']} ms, {health['max']} ms"
