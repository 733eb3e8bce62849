"""`docs/benchmarks.json` as the tables of `docs/benchmarks.md`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.bench import client, scrape, soak_report
from tools.bench.card_report import card_part
from tools.bench.figures import number
from tools.bench.stack_report import stack_part

BEGIN = "<!-- tables: made from benchmarks.json by `make bench` -->"
END = "<!-- end of tables -->"

TABLES = {
    "speed": "Tokens per second, from the first request sent to the last token read",
    "decode": "Tokens per second once every stream has its first token (shown, nothing is wanted)",
    "first": "Time to the first token",
    "start": "From process start to the first token",
    "memory": "Memory of the whole process tree",
    "sampler": "The sampler alone, vocabulary of 128,256, one thread, one call",
    "prefix": "A prompt that was seen before (ours alone; `theirs` is the first time)",
}


def render(results: dict[str, Any]) -> str:
    """All tables, and the lines about the machine. The same results give the same text."""
    parts = [_machine(results), _summary(results["points"])]
    for key, title in TABLES.items():
        if points := [p for p in results["points"] if p["table"] == key]:
            parts.append(f"### {title}\n\n{_table(points)}")
    parts.append(_llama(results.get("llama")))
    parts.append(scrape.render(results.get("scrape")))
    parts.append(_forms(results.get("forms")))
    parts.append(_faults(results.get("faults")))
    parts.append(soak_report.render(results.get("soak")))
    parts.append(client.render(results.get("client")))
    parts.append(stack_part(results.get("stack")))
    parts.append(card_part(results.get("gpu")))
    return "\n\n".join(parts) + "\n"


def replace(document: str, tables: str) -> str:
    """The document with new tables between its markers. ValueError without markers."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError("the document has no markers for the tables")
    return f"{head}{BEGIN}\n\n{tables}\n{END}{tail}"


def write(document: Path, results: dict[str, Any]) -> None:
    """Put the tables of the results into the file."""
    document.write_text(replace(document.read_text("utf-8"), render(results)), "utf-8")


ENGINES = {"embedded-gguf": "llama-server", "embedded": "transformers"}

LLAMA_TABLES = {
    "overhead": "Tokens per second through the sidecar (`ours`) and from llama-server itself (`theirs`)",
    "cost": "What that costs, beside its limit",
    "event": "An event behind a stand-in for llama-server that costs nothing",
}


def _llama(llama: dict[str, Any] | None) -> str:
    title = "## In front of llama-server"
    if llama is None:
        return f"{title}\n\nNot measured here: `make bench` with a llama-server fills this in."
    m = llama["machine"]
    parts = [
        title,
        f"{llama['build']}; measured {m['date']} on {m['cores']} cores of {m['cpu']}; others kept "
        f"{m['busy_by_others_cores']:.2f} cores busy.{_host(llama)}",
    ]
    for key, heading in LLAMA_TABLES.items():
        if points := [p for p in llama["points"] if p["table"] == key]:
            parts.append(f"### {heading}\n\n{(_limits if key == 'cost' else _table)(points)}")
    return "\n\n".join(parts)


def _host(llama: dict[str, Any]) -> str:
    """How fast the host was, where it was looked at: runs of one machine differ by it."""
    if "loop_ms" not in llama:
        return ""
    low, middle, high = llama["loop_ms"]
    return (
        " Each turn waited, for ten minutes in all, until the host was calm: a loop of a million additions "
        f"in Python then took {middle:g} ms ({low:g} to {high:g})."
    )


def _forms(forms: dict[str, Any] | None) -> str:
    title = "## Answers in a form"
    if forms is None:
        return f"{title}\n\nNot measured here: `python -m tools.bench --forms` fills this in."
    m = forms["machine"]
    lines = [
        f"Measured {m['date']} on {m['cores']} cores of {m['cpu']}; others kept "
        f"{m['busy_by_others_cores']:.2f} cores busy.",
        "",
        "| engine | answers | complete | of these valid | first token, free | new schema | the same again |",
        "|---|" + "---:|" * 6,
    ]
    for r in forms["rows"]:
        times = " | ".join(f"{number(r[name])} ms" for name in ("free_ms", "new_ms", "known_ms"))
        valid = r["valid"] / max(1, r["complete"])
        lines.append(f"| {r['engine']} | {r['asked']} | {r['complete']} | {valid:.1%} | {times} |")
    return title + "\n\n" + "\n".join(lines)


def _faults(faults: dict[str, Any] | None) -> str:
    title = "## What faults cost"
    if faults is None:
        return f"{title}\n\nNot measured here: `python -m tools.bench --faults` fills this in."
    m, kept = faults["machine"], faults["ledger"]
    kinds, codes = kept["kinds"], ", ".join(f"{name} {count}" for name, count in kept["codes"].items())
    lines = [
        title,
        "",
        f"{faults['build']}; measured {m['date']} on {m['cores']} cores of {m['cpu']}; others kept "
        f"{m['busy_by_others_cores']:.2f} cores busy.",
        "",
        f"{kept['requests']} requests of every kind in {number(kept['seconds'])} s, llama-server killed "
        f"{kept['kills']} times meanwhile: {kinds['complete']} complete, {kinds['error']} answered with an "
        f"error that says why ({codes}), {kinds['left']} whose client left by itself, "
        f"**{kinds['lost']} lost**.",
        "",
        "Seconds from SIGKILL to the first right answer, the wait before the restart included (1, 2, 4, 8 s "
        "for the first to fourth death within ten minutes):",
        "",
        "| engine | kills | median | p95 | worst | after the 1st | 2nd | 3rd | 4th |",
        "|---|" + "---:|" * 8,
    ]
    for profile, found in faults["recovery"].items():
        figures = (found["median_s"], found["p95_s"], found["worst_s"], *found["median_s_by_death"])
        seconds = " | ".join(f"{number(value)} s" for value in figures)
        lines.append(f"| {ENGINES[profile]} | {found['kills']} | {seconds} |")
    return "\n".join(lines)


def _machine(results: dict[str, Any]) -> str:
    m, s, seen = results["machine"], results["sizes"], results["seen"]
    lines = [
        f"Measured {m['date']} on {m['cores']} cores of {m['cpu']}, {m['memory_gib']} GiB; Python "
        f"{m['python']}, torch {m['torch']}, transformers {m['transformers']}. Meanwhile others on the "
        f"machine kept {m['busy_by_others_cores']:.2f} cores busy.",
        f"Both servers: {s['threads']} threads, {s['kv_tokens']} tokens of KV memory in pages of "
        f"{s['page_tokens']}, {s['batch_tokens']} tokens in a step.",
    ]
    lines += [f"- {name}: {value:.2f}" for name, value in seen.items()]
    return "\n".join([lines[0], "", lines[1], "", *lines[2:]]).strip()


def _summary(points: Sequence[dict[str, Any]]) -> str:
    judged = [p for p in points if p["wanted"] is not None]
    short = [p for p in judged if not p["met"]]
    text = f"{len(judged) - len(short)} of {len(judged)} wanted ratios are met."
    if short:
        text += " Short: " + "; ".join(f"{p['what']} ({p['table']})" for p in short) + "."
    return text


def _table(points: Sequence[dict[str, Any]]) -> str:
    lines = ["| what | ours | theirs | times better (range) | pairs | wanted | met |", "|---|" + "---:|" * 6]
    lines += [_row(point) for point in points]
    return "\n".join(lines)


def _limits(points: Sequence[dict[str, Any]]) -> str:
    """Medians beside the most that they may be: a ratio of a limit would say nothing."""
    lines = ["| what | median | limit | measured | met |", "|---|" + "---:|" * 4]
    for p in points:
        met = "yes" if p["met"] else "**no**"
        lines.append(
            f"| {p['what']} | {number(p['ours'])} {p['unit']} | {number(p['theirs'])} {p['unit']} | "
            f"{p['pairs']} times | {met} |"
        )
    return "\n".join(lines)


def _row(p: dict[str, Any]) -> str:
    low, high = p["ratio_range"]
    ratio = f"{p['ratio']:.2f} ({low:.2f} to {high:.2f})"
    wanted = "" if p["wanted"] is None else f"{p['wanted']:g}"
    met = {None: "", True: "yes", False: "**no**"}[p["met"]]
    values = f"{number(p['ours'])} {p['unit']} | {number(p['theirs'])} {p['unit']}"
    return f"| {p['what']} | {values} | {ratio} | {p['pairs']} | {wanted} | {met} |"
