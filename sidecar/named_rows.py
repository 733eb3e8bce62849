"""Figures as a person reads them: a name, and what it is."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import RenderableType
from rich.table import Table

DIM = "dim"


def named_rows(rows: Iterable[tuple[str, RenderableType]]) -> Table:
    """A table without lines; the names stand back."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style=DIM, no_wrap=True)
    table.add_column()
    for name, value in rows:
        table.add_row(name, value)
    return table
