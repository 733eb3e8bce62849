"""How far something is: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

# Phase, share done (None: not known), detail.
Show = Callable[[str, float | None, str], None]


@contextlib.contextmanager
def shown(say: Callable[[str], None]) -> Iterator[Show]:
    """Show what is told inside the block; where there is no terminal, `say` gets the lines."""
    if not sys.stderr.isatty():
        yield _lines(say)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _bar(progress)


def _bar(progress: Progress) -> Show:
    task = progress.add_task("", total=None)

    def show(phase: str, share: float | None, detail: str) -> None:
        total = None if share is None else 1.0
        progress.update(task, description=f"{phase} {detail}"[:60], total=total, completed=share or 0.0)

    return show


def _lines(say: Callable[[str], None]) -> Show:
    """One line for each phase, and for each quarter of it."""
    last: tuple[str, int] | None = None

    def show(phase: str, share: float | None, detail: str) -> None:
        nonlocal last
        quarter = int((share or 0.0) * 4)
        if (phase, quarter) != last:
            last = (phase, quarter)
            done = "" if share is None else f" {share:.0%}"
            say(f"{phase}{done} {detail}".rstrip())

    return show
