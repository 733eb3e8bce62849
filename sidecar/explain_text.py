"""What `llm-sidecar profiles` and `plan` print: for 80 columns, and for a pipe as well."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sidecar.explain import Command, Explanation
from sidecar.explain_rows import Row
from sidecar.fit import Fit
from sidecar.profiles import Profile

STYLE = {
    "fits": "green", "does not fit": "red", "on the CPU": "yellow", "not known": "dim",
    "can not start": "red",
}  # fmt: skip
DIM, HEAD = "dim", "bold"
# Beside what can not be started, for all that it fits.
LACKS = "†"
NARROW = 78


def show_profiles(
    console: Console,
    listed: Iterable[tuple[Profile, Fit]],
    active: str,
    about: str,
    lacking: Collection[str] = (),
) -> None:
    """One line for each profile; what would be served has a star, what has a `lacking` backend a mark."""
    table = Table.grid(padding=(0, 2))
    table.add_row("", *(Text(word, DIM) for word in ("profile", "backend", "VRAM", "here")))
    for profile, fit in listed:
        mark = Text("*" if profile.name == active else "", "bold green")
        name = Text(profile.name, HEAD if profile.name == active else "")
        vram = "" if profile.vram_mib is None else gib(profile.vram_mib)
        why = "" if fit.verdict == "on the CPU" else f"  {fit.why}"
        lacks = f" {LACKS}" if profile.backend in lacking else ""
        here = Text.assemble(_verdict(fit), (lacks, "yellow"), (why, DIM))
        table.add_row(mark, name, profile.backend, Text(vram, justify="right"), here)
    console.print(table)
    console.print(Text(about, DIM))


def gib(mib: int) -> str:
    """As people say it."""
    return f"{mib / 1024:.1f} GiB"


def show_plan(console: Console, found: Explanation, memory: RenderableType) -> None:
    """What it takes, every value with what set it, then the child's command line, ready to be pasted."""
    console.print(_title(found))
    for name, part in (("Memory", memory), *_sections(found)):
        console.print(Text(f"\n{name}", HEAD))
        console.print(Padding(part, (0, 0, 0, 2), expand=False))
    console.print(Text("\nCommand", HEAD))
    # Not wrapped: whoever copies it gets the line that is run.
    for line in command_lines(found.command):
        console.print(f"  {line}", soft_wrap=True, markup=False, highlight=False)
    for note in found.command.notes:
        console.print(Padding(Text(note, DIM), (0, 0, 0, 2), expand=False))


def _title(found: Explanation) -> RenderableType:
    profile = found.profile
    title = Text.assemble((profile.name, "bold cyan"), "  ", profile.display_name)
    here = Text.assemble("Here: ", _verdict(found.fit), (f", {found.fit.why}", DIM))
    return Group(title, *filter(None, [profile.description]), here)


def _verdict(fit: Fit) -> Text:
    return Text(fit.verdict, STYLE[fit.verdict])


def _sections(found: Explanation) -> Iterator[tuple[str, RenderableType]]:
    for block in ("", "gpu", found.profile.backend):
        rows = [Row(_key(row.name), row.value, row.origin) for row in found.keys if _block(row.name) == block]
        unsaid = [_key(name) for name in found.unsaid if _block(name) == block]
        yield f"Profile, {block}" if block else "Profile", Group(_table(rows), *_unsaid(unsaid))
    yield "Limits", _table(found.limits)
    yield "Settings", _table(row for row in found.settings if row.value)
    if found.flags:
        yield "Values of the command line", _table(found.flags)
    if found.unused:
        yield "Not used", _table(Row(name, "", why) for name, why in found.unused)


def _block(name: str) -> str:
    return name.rpartition(".")[0]


def _key(name: str) -> str:
    return name.rpartition(".")[2]


def _unsaid(names: list[str]) -> Iterator[Text]:
    if names:
        yield Text(f"not set: {', '.join(names)}", DIM)


def _table(rows: Iterable[Row]) -> Table:
    """Names keep their width; what is long is folded within its column."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", max_width=48)
    table.add_column(style=DIM)
    for row in rows:
        table.add_row(row.name, *([row.value] if row.value else []), row.origin)
    return table


def command_lines(command: Command) -> list[str]:
    """The command as a shell reads it, one flag to a line."""
    assigned = [f"{name}={shlex.quote(value)}" for name, value in _sorted(command.environment)]
    whole = " ".join([*assigned, shlex.join(command.words)])
    if len(whole) <= NARROW:
        return [whole]
    lines = [" ".join([*assigned, shlex.quote(command.words[0])])]
    for word in command.words[1:]:
        if word.startswith("-") and not word[1:].isdigit():
            lines.append(f"    {shlex.quote(word)}")
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def _sorted(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted(environment.items())
