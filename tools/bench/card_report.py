"""What was measured on a card, as a part of docs/benchmarks.md."""

from __future__ import annotations

from typing import Any

from tools.bench.figures import number


def card_part(gpu: dict[str, Any] | None) -> str:
    """What was measured on a card: speed, and whether the budget was kept."""
    title = "### On an NVIDIA card"
    if gpu is None:
        return f"{title}\n\nNot measured here: `make gpu-test` on a machine with a card fills this in."
    lines = [
        f"{gpu['card']}, {gpu['model']}; measured copy bandwidth {gpu['copy_gb_per_s']:.0f} GB/s.",
        "",
        "| streams | graphs | tokens/s | card's limit | share | peak VRAM |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for run in gpu["runs"]:
        lines.append(
            f"| {run['streams']} | {'on' if run['graphs'] else 'off'} | {number(run['tokens_per_s'])} | "
            f"{number(run['limit_tokens_per_s'])} | {run['tokens_per_s'] / run['limit_tokens_per_s']:.0%} | "
            f"{run['peak_mib']:.0f} MiB |"
        )
    parts = [title, "\n".join(lines)]
    return "\n\n".join([*parts, _kept(gpu["kept"])] if "kept" in gpu else parts)


def _kept(kept: dict[str, Any]) -> str:
    m = kept["machine"]
    about = (
        f"`VRAM_BUDGET={kept['budget_mib']}MiB`, {kept['minutes']:g} minutes of `llm-sidecar soak` at each "
        f"number of streams, context {kept['context']}. {kept['card']}; {m['cores']} cores of {m['cpu']}, "
        f"{m['memory_gib']} GiB; torch {m['torch']}; {m['date']}. The high-water mark is NVML's, without "
        "what others held before."
    )
    head = ("streams", "requests", "tokens/s", "high-water mark", "plan", "its error", "failed for memory")
    lines = [about, "", f"| {' | '.join(head)} | leak | kept |", "|" + "---:|" * len(head) + "---|---|"]
    lines += [_soak(run) for run in kept["soaks"]]
    return "\n".join([*lines, "", _attempt(kept["attempt"])])


def _soak(run: dict[str, Any]) -> str:
    plan = "not told" if run["plan_mib"] is None else f"{run['plan_mib']:.0f} MiB"
    error = "" if run["plan_error_percent"] is None else f"{run['plan_error_percent']:+.1f} %"
    cells = (
        run["streams"], run["requests"], number(run["tokens_per_s"]), f"{run['high_water_mib']:.0f} MiB",
        plan, error, run["failed_for_memory"], run["verdict"], "yes" if run["kept"] else "**no**",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def _attempt(tried: dict[str, Any]) -> str:
    after = "is answered" if tried["served_after"] else "**is not answered**"
    return (
        f"An attempt above the cap, lowered to what was held while {tried['others']} others were answered: "
        f"{tried['status']} `{tried['code']}`; {tried['others_served']} of the others got their whole "
        f"answer; with the cap back the same prompt {after}."
    )
