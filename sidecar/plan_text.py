"""A plan as people read it, and as programs do: a bar, a table, the sentence that matters, JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from sidecar.budget import FILL, MIB, Plan, named_parts
from sidecar.estimate import Estimate
from sidecar.planning import Planned, Target

BAR_CELLS = 64
DIM = "dim"
# Each part of the bar with its own sign too: colours are lost in a pipe.
SIGNS = {
    "process": ("▒", "cyan"), "weights": ("█", "blue"), "workspace": ("▓", "magenta"),
    "CUDA context": ("▒", "yellow"), "keys and values": ("=", "green"),
    "free": ("·", DIM), "margin": ("-", DIM),
}  # fmt: skip
WHAT = {
    "process": "the program and its libraries, the vocabulary",
    "workspace": "activations and logits of one step",
    "CUDA context": "the driver's and the libraries' own",
}
VERDICTS = {True: ("fits", "green"), False: ("does not fit", "red")}


def memory(planned: Planned, target: Target) -> RenderableType:
    """The parts of one plan with a bar over them, and the sentence."""
    if not isinstance(planned, Estimate):
        return Text(f"not planned: {planned.why}", DIM)
    parts = list(_parts(planned))
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style=DIM)
    for name, mib, what in parts:
        sign, style = SIGNS[name]
        table.add_row(Text.assemble((sign, style), f" {name}"), f"{mib:.0f} MiB", what)
    head = "no limit is set" if target.budget_mib is None else f"of {target.budget_mib:.0f} MiB"
    bar = _bar([(name, mib) for name, mib, _ in parts], planned.budget_mib)
    return Group(Text(f"{head}, on {_named(target)}", DIM), bar, table, _sentence(planned))


def _named(target: Target) -> str:
    return "a card" if target.device == "cuda" else "the CPU"


def _parts(found: Estimate) -> Iterator[tuple[str, float, str]]:
    demand, plan = found.demand, found.plan
    for name, mib in named_parts(demand):
        yield name, mib, WHAT.get(name, "")
    pages = demand.needed_pages if plan is None else plan.pages
    each = f"{demand.page_mib * 1024 / demand.page_tokens:.4g} KiB a token"
    yield "keys and values", pages * demand.page_mib, f"{pages * demand.page_tokens} tokens, {each}"
    if found.budget_mib is not None:
        free = found.budget_mib * FILL - demand.fixed_mib - pages * demand.page_mib
        if plan is not None and free >= 1:
            yield "free", free, "no request more would fit, or is wanted"
        yield "margin", found.budget_mib * (1 - FILL), "kept below the watchdog's line"


def _bar(parts: Sequence[tuple[str, float]], budget_mib: float | None) -> Text:
    """What each part takes of the whole; what does not fit runs over the bar's end, behind a mark."""
    whole = sum(mib for _, mib in parts)
    scale = BAR_CELLS / max(whole, 1e-9) if budget_mib is None else BAR_CELLS / budget_mib
    cells = Text()
    for name, mib in parts:
        sign, style = SIGNS[name]
        cells.append(sign * max(1, round(mib * scale)), style)
    if budget_mib is not None and whole > budget_mib * 1.001:
        over = cells[:BAR_CELLS]
        return Text.assemble(over, ("▏", "bold red"), Text("x" * min(len(cells) - BAR_CELLS, 12), "red"))
    return cells[:BAR_CELLS]


def _sentence(found: Estimate) -> Text:
    word, style = VERDICTS[found.plan is not None]
    return Text.assemble((word, f"bold {style}"), found.sentence.removeprefix(word))


def show_matrix(
    console: Console, names: Sequence[str], rows: Sequence[Sequence[Planned]], targets: Sequence[Target]
) -> None:
    """Profiles by budgets: requests at once and their context; below, what would make one fit."""
    table = Table.grid(padding=(0, 2))
    for _ in range(len(targets) + 1):
        table.add_column(no_wrap=True)
    table.add_row(Text("profile", DIM), *(Text(_headed(target), DIM) for target in targets))
    for name, row in zip(names, rows, strict=True):
        table.add_row(name, *(_cell(planned) for planned in row))
    console.print(table)
    for note in _notes(rows):
        console.print(Text(note, DIM))


def _headed(target: Target) -> str:
    return "no limit" if target.budget_mib is None else f"{target.budget_mib / 1024:g} GiB"


def _cell(planned: Planned) -> Text:
    if not isinstance(planned, Estimate):
        said = "not known" if planned.vram_mib is None else f"~{planned.vram_mib / 1024:.1f} GiB *"
        return Text(said, DIM)
    if planned.plan is None:
        return Text("no", "red")
    return Text(f"{planned.plan.full_contexts} x {planned.demand.context}", "green")


def _notes(rows: Sequence[Sequence[Planned]]) -> Iterator[str]:
    for row in rows:
        for planned in row:
            if isinstance(planned, Estimate) and planned.plan is None:
                yield f"{planned.profile} in {planned.budget_mib:.0f} MiB: use {' or '.join(planned.changes)}"
    guessed = [one for row in rows for one in row if not isinstance(one, Estimate) and one.vram_mib]
    if guessed:
        yield f"* the profile's own figure (vram_mib). {guessed[0].why}"


def as_json(name: str, row: Sequence[Planned], targets: Sequence[Target]) -> dict[str, Any]:
    """One profile for each target; MiB and tokens."""
    plans = [_target(planned, target) for planned, target in zip(row, targets, strict=True)]
    return {"profile": name, "plans": plans}


def _target(planned: Planned, target: Target) -> dict[str, Any]:
    about: dict[str, Any] = {"device": target.device, "budget_mib": target.budget_mib}
    if not isinstance(planned, Estimate):
        return about | {"fits": None, "why": planned.why, "vram_mib": planned.vram_mib}
    demand, plan = planned.demand, planned.plan
    about |= {
        "fits": plan is not None,
        "sentence": planned.sentence,
        "changes": list(planned.changes),
        "weights_mib": round(demand.weights_mib, 1),
        "workspace_mib": round(demand.workspace_mib, 1),
        "cuda_context_mib": demand.context_mib,
        "process_mib": round(demand.process_mib, 1),
        "kv_bytes_per_token": round(demand.page_mib * MIB / demand.page_tokens),
        "context": demand.context,
        "least_mib": round(demand.least_mib, 1),
    }
    return about | _filled(plan) if plan is not None else about


def _filled(plan: Plan) -> dict[str, Any]:
    return {
        "kv_mib": round(plan.kv_mib, 1),
        "kv_tokens": plan.kv_tokens,
        "requests": plan.full_contexts,
        "total_mib": round(plan.total_mib, 1),
    }
