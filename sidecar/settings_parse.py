"""What a setting is, and how its text becomes a value: ValueError for what is not accepted."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(GiB|GB|G|MiB|MB|M)", re.IGNORECASE)
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of a table. `names` are environment variables, the canonical one first."""

    field: str
    names: tuple[str, ...]
    parse: Callable[[str], Any]
    accepts: str
    text: str
    flag: str | None = None
    switch: bool = False
    example: str = ""


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number of these bounds."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?\d{1,10}", text, re.ASCII) or not low <= int(text) <= high:
            raise ValueError(text)
        return int(text)

    return parse


def seconds(high: float) -> Callable[[str], float]:
    """Seconds, with or without the `s`."""

    def parse(text: str) -> float:
        number = text.removesuffix("s").strip()
        if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", number, re.ASCII) or float(number) > high:
            raise ValueError(text)
        return float(number)

    return parse


def matching(pattern: str) -> Callable[[str], str]:
    """A text that is this pattern from end to end."""

    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(text)
        return text

    return parse


def truth(text: str) -> bool:
    """Yes or no, in the words people use."""
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError(text)


def size_mib(text: str) -> int:
    """`10.5GiB`, `10752MiB`; GB means GiB, as in `10.5 GB = 10752 MiB`. Never a bare number."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(text)
    mib = float(found[1]) * (1024 if found[2][0] in "gG" else 1)
    if not 1 <= mib <= 2**24:
        raise ValueError(text)
    return int(mib)


def hosts(text: str) -> tuple[str, ...]:
    """Names of hosts, separated by commas."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not all(re.fullmatch(r"[A-Za-z0-9.:\[\]_-]{1,255}", name) for name in names):
        raise ValueError(text)
    return names
