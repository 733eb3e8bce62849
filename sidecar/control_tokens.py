"""Where a text spells one of the model's control tokens. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable


def spelled(names: Iterable[str]) -> re.Pattern[str] | None:
    """Matches one character, as group 1: the first of a control token, overlapping ones included.

    A tree of common beginnings. With the names side by side a text of half tokens takes as many tries at
    each place as there are names: 3 s for 1 MiB and the 250 reserved tokens of some vocabularies. None
    where there are no names.
    """
    found = {name for name in names if name}
    firsts = sorted({name[0] for name in found})
    rests = [f"{re.escape(c)}(?={_tree({n[1:] for n in found if n[0] == c})})" for c in firsts]
    return re.compile(f"({'|'.join(rests)})", re.DOTALL) if rests else None


def _tree(texts: set[str]) -> str:
    """Any of the texts. Of two that begin alike the shorter is enough: nothing is taken but the first."""
    if "" in texts:
        return ""
    firsts = sorted({text[0] for text in texts})
    branches = [re.escape(c) + _tree({t[1:] for t in texts if t[0] == c}) for c in firsts]
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
