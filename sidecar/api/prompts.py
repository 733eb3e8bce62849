"""The four shapes of a completion's prompt."""

from __future__ import annotations

from typing import Any

from sidecar.errors import BadRequest

MAX_PROMPTS = 4
MAX_TOKEN_ID = 2**31 - 1

Prompt = str | tuple[int, ...]


def prompts(value: Any) -> tuple[Prompt, ...]:
    """Text, several texts, token ids, or several lists of token ids."""
    if isinstance(value, str):
        return (_text(value),)
    if not isinstance(value, list) or not value:
        raise _bad("`prompt` must be text, a list of texts, token ids, or lists of token ids.")
    if all(isinstance(item, str) for item in value):
        return tuple(_text(item) for item in _few(value))
    if all(isinstance(item, list) for item in value):
        return tuple(_token_ids(item) for item in _few(value))
    return (_token_ids(value),)


def _few(items: list[Any]) -> list[Any]:
    if len(items) > MAX_PROMPTS:
        raise _bad(f"`prompt` may hold {MAX_PROMPTS} prompts at most, not {len(items)}.")
    return items


def _text(value: str) -> str:
    if not value:
        raise _bad("`prompt` is empty.")
    return value


def _token_ids(items: list[Any]) -> tuple[int, ...]:
    if not items:
        raise _bad("`prompt` is empty.")
    if set(map(type, items)) == {int} and min(items) >= 0 and max(items) <= MAX_TOKEN_ID:
        return tuple(items)  # the usual case, many times faster than one by one
    return tuple(_token_id(item) for item in items)


def _token_id(item: Any) -> int:
    if isinstance(item, float) and item.is_integer():
        item = int(item)
    if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item <= MAX_TOKEN_ID:
        raise _bad("`prompt`: token ids must be integers of the model's vocabulary.")
    return item


def _bad(message: str) -> BadRequest:
    return BadRequest(message, param="prompt")
