"""Progress of a long measurement: a bar on a terminal, a line for each step anywhere else."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Show = Callable[[str], None]
"""Call it when a step begins."""


@contextlib.contextmanager
def progress(total: int) -> Iterator[Show]:
    """`total` steps will begin inside the block."""
    console = Console(stderr=True)
    with _bar(total, console) if console.is_terminal else _lines(total, console) as show:
        yield show


@contextlib.contextmanager
def _bar(total: int, console: Console) -> Iterator[Show]:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)
        begun = -1

        def show(step: str) -> None:
            nonlocal begun
            begun += 1
            bar.update(task, completed=begun, description=step)

        yield show
        bar.update(task, completed=total, description="done")


@contextlib.contextmanager
def _lines(total: int, console: Console) -> Iterator[Show]:
    began, begun = time.monotonic(), 0

    def show(step: str) -> None:
        nonlocal begun
        begun += 1
        console.print(f"[{begun}/{total}] {time.monotonic() - began:.0f} s: {step}", markup=False)

    yield show
