"""A conversation's functions and calls in OpenAI's form, which chat templates read. Pure.

`change` is applied to every text that a client wrote: that is how an engine keeps such a text from
spelling a control token. Names of functions are left alone: they are letters, digits, `_` and `-`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from sidecar.generation import Function, ToolCall

Change = Callable[[str], str]


def same(text: str) -> str:
    """No change."""
    return text


def functions(offered: Sequence[Function], change: Change = same) -> list[dict[str, Any]]:
    """The functions on offer."""
    return [
        {
            "type": "function",
            "function": {
                "name": function.name,
                "description": change(function.description),
                "parameters": _changed(dict(function.parameters), change),
            },
        }
        for function in offered
    ]


def changed_functions(offered: Sequence[Function], change: Change) -> tuple[Function, ...]:
    """The same functions, every text of them changed."""
    return tuple(
        replace(f, description=change(f.description), parameters=_changed(dict(f.parameters), change))
        for f in offered
    )


def arguments(text: str, change: Change = same) -> dict[str, Any] | str:
    """A call's arguments as the object that they are; as text where they are none, or can not be JSON again.

    The texts in the object are what is changed: in JSON a control token can be spelled with escapes.
    """
    try:
        found = _changed(json.loads(text, parse_constant=_refuse), change)
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):  # half a surrogate pair is a ValueError too
        return change(text)
    return found if isinstance(found, dict) else change(text)


def changed_call(call: ToolCall, change: Change) -> ToolCall:
    """The same call, every text of it changed."""
    found = arguments(call.arguments, change)
    written = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    return replace(call, id=change(call.id), arguments=written)


def _changed(value: Any, change: Change) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _changed(inner, change) for key, inner in value.items()}
    return [_changed(inner, change) for inner in value] if isinstance(value, list) else value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
