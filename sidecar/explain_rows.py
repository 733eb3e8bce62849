"""One value, and what set it, in words. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.settings import Settings


@dataclass(frozen=True, slots=True)
class Row:
    """One value; `origin` is what set it."""

    name: str
    value: str
    origin: str


def origin(settings: Settings, field: str) -> str:
    """What set the setting."""
    found = settings.origins.get(field)
    if found is None:
        return "default"
    return f"command line {found}" if found.startswith("--") else f"environment {found}"


def shown(value: object) -> str:
    """The value as one would write it; empty where there is none."""
    if value is None or value in ("", [], ()):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(shown(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
