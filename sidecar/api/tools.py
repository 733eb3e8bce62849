"""The functions that a request offers to the model, checked."""

from __future__ import annotations

import re
from typing import Any

from sidecar.errors import BadRequest, Unsupported
from sidecar.generation import Function, ToolChoice, Tools
from sidecar.schema_limits import check_enforced, check_limits

MAX_TOOLS = 128
MAX_DESCRIPTION_CHARS = 16 * 1024
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CHOICES: dict[str, ToolChoice] = {"none": "none", "auto": "auto", "required": "required"}


def tools(offered: Any, choice: Any, parallel: bool, *, supported: bool) -> Tools | None:
    """What the fields `tools`, `tool_choice` and `parallel_tool_calls` mean together.

    Raises BadRequest, or Unsupported where the model has no tools.
    """
    if offered in (None, []):
        if choice not in (None, "none", "auto"):
            raise BadRequest("`tool_choice` needs `tools`.", param="tool_choice")
        return None
    functions = _functions(offered)
    named, only = _choice(choice, functions)
    if not supported:
        raise Unsupported(
            "`tools` are not supported by this model: its profile does not say `supports_tools: true`.",
            param="tools",
        )
    if named == "required":
        for index, function in enumerate(functions):
            if only in (None, function.name):
                check_enforced(dict(function.parameters), f"tools.{index}.function.parameters")
    return Tools(functions, named, only, parallel)


def _functions(offered: Any) -> tuple[Function, ...]:
    if not isinstance(offered, list) or len(offered) > MAX_TOOLS:
        raise BadRequest(f"`tools` must be a list of at most {MAX_TOOLS} functions.", param="tools")
    found = tuple(_function(tool, f"tools.{index}") for index, tool in enumerate(offered))
    if len({function.name for function in found}) != len(found):
        raise BadRequest("`tools`: two functions have the same name.", param="tools")
    return found


def _function(tool: Any, where: str) -> Function:
    if not isinstance(tool, dict) or tool.get("type", "function") != "function":
        raise BadRequest(f'`{where}` must have "type": "function".', param=where)
    fields = tool.get("function")
    fields = fields if isinstance(fields, dict) else {}
    name = fields.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise BadRequest(
            f"`{where}.function.name` must be 1 to 64 letters, digits, `_` or `-`.",
            param=f"{where}.function.name",
        )
    return Function(name, _description(fields, where), _parameters(fields, where))


def _description(fields: dict[str, Any], where: str) -> str:
    text = fields.get("description") or ""
    if not isinstance(text, str) or len(text) > MAX_DESCRIPTION_CHARS:
        param = f"{where}.function.description"
        raise BadRequest(
            f"`{param}` must be text of at most {MAX_DESCRIPTION_CHARS} characters.", param=param
        )
    return text


def _parameters(fields: dict[str, Any], where: str) -> dict[str, Any]:
    schema = fields.get("parameters") or {"type": "object", "properties": {}}
    param = f"{where}.function.parameters"
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        raise BadRequest(f'`{param}` must be a JSON schema of "type": "object".', param=param)
    check_limits(schema, param)
    return schema


def _choice(choice: Any, functions: tuple[Function, ...]) -> tuple[ToolChoice, str | None]:
    if choice is None:
        return "auto", None
    if isinstance(choice, str) and choice in _CHOICES:
        return _CHOICES[choice], None
    only = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    name = only.get("name") if isinstance(only, dict) else None
    if name not in [function.name for function in functions]:
        raise BadRequest(
            "`tool_choice` must be none, auto, required, or name one of the functions in `tools`.",
            param="tool_choice",
        )
    return "required", name
