"""Where an exception came from, without what it says: within a request its words may be a client's. Pure."""

from __future__ import annotations

import traceback


def places(error: BaseException) -> str:
    """As a traceback, each exception by its type alone; what caused it comes first."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    head = "" if before is None else f"{places(before)}\n\nand then\n\n"
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{head}Traceback (most recent call last):\n{frames}{type(error).__name__}"
