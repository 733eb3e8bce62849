"""The four shapes of a completion's prompt."""

from __future__ import annotations

from typing import Any

from sidecar.errors import BadRequest

MAX_PROMPTS = 4
MAX_INPUTS = 256
MAX_TOKEN_ID = 2**31 - 1

Prompt = str | tuple[int, ...]


def prompts(value: Any, field: str = "prompt", most: int = MAX_PROMPTS) -> tuple[Prompt, ...]:
    """Text, several texts, token ids, or several lists of token ids. BadRequest names the field."""
    try:
        return _prompts(value, most)
    except ValueError as error:
        raise BadRequest(f"`{field}` {error}", param=field) from None


def _prompts(value: Any, most: int) -> tuple[Prompt, ...]:
    if isinstance(value, str):
        return (_text(value),)
    if not isinstance(value, list) or not value:
        raise ValueError("must be text, a list of texts, token ids, or lists of token ids.")
    several = all(isinstance(item, str) for item in value) or all(isinstance(item, list) for item in value)
    if several and len(value) > most:
        raise ValueError(f"may hold {most} at most, not {len(value)}.")
    if several:
        return tuple(_text(item) if isinstance(item, str) else _token_ids(item) for item in value)
    return (_token_ids(value),)


def _text(value: str) -> str:
    if not value:
        raise ValueError("is empty.")
    return value


def _token_ids(items: list[Any]) -> tuple[int, ...]:
    if not items:
        raise ValueError("is empty.")
    if set(map(type, items)) == {int} and min(items) >= 0 and max(items) <= MAX_TOKEN_ID:
        return tuple(items)  # the usual case, many times faster than one by one
    return tuple(_token_id(item) for item in items)


def _token_id(item: Any) -> int:
    if isinstance(item, float) and item.is_integer():
        item = int(item)
    if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item <= MAX_TOKEN_ID:
        raise ValueError("holds something else than texts and token ids, which are whole numbers.")
    return item
