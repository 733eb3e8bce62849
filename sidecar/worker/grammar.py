"""What an answer must look like, as the text of a llguidance grammar. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sidecar.generation import Function, JsonFormat, Tools

# What may stand between two parts of JSON: none, one blank, or one or two ends of line with some indent.
# With any number of blanks allowed a model that is in doubt writes nothing else; the same as llama.cpp's.
_WHITESPACE = r" |\n{1,2}[ \t]{0,20}"
_OPTIONS = {"x-guidance": {"whitespace_pattern": _WHITESPACE}}
CALL_MARKS = ("<tool_call>", "</tool_call>")


def of_format(format: JsonFormat) -> str:
    """One JSON value: what the schema describes, else an object."""
    return _together({"json_schema": _json({"type": "object"} if format.schema is None else format.schema)})


def of_calls(tools: Tools, marks: Sequence[int | None]) -> str:
    """Calls in the form of Hermes models, one or, if parallel, several with an end of line between.

    `marks` are the token ids of CALL_MARKS where the vocabulary has tokens for them: those the model
    knows, while the same words spelled in letters mean nothing to it.
    """
    offered = callable_functions(tools)
    begin, end = (_mark(text, token) for text, token in zip(CALL_MARKS, marks, strict=True))
    calls = " | ".join(f"call{index}" for index in range(len(offered)))
    rules = ['start: call ("\\n" call)*' if tools.parallel else "start: call", f"call: {calls}"]
    for index, function in enumerate(offered):
        head = json.dumps(f'\n{{"name": "{function.name}", "arguments": ')
        rules.append(f'call{index}: {begin} {head} @arguments{index} "}}\\n" {end}')
    arguments = [
        {"name": f"arguments{index}", "json_schema": _json({"type": "object", **function.parameters})}
        for index, function in enumerate(offered)
    ]
    return _together({"name": "calls", "lark_grammar": "\n".join(rules)}, *arguments)


def callable_functions(tools: Tools) -> tuple[Function, ...]:
    """The functions that a forced call may be of."""
    return tuple(function for function in tools.functions if tools.only in (None, function.name))


def _mark(text: str, token: int | None) -> str:
    return json.dumps(text) if token is None else f"<[{token}]>"


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {**_OPTIONS, **schema}


def _together(*grammars: Mapping[str, Any]) -> str:
    return json.dumps({"grammars": list(grammars)})
