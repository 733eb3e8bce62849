"""The field `response_format`, checked."""

from __future__ import annotations

from typing import Any

from sidecar.api.tools import NAME
from sidecar.errors import BadRequest, Unsupported
from sidecar.generation import JsonFormat, Tools
from sidecar.schema_limits import check_enforced, check_limits

FIELD = "response_format"
SCHEMA = f"{FIELD}.json_schema.schema"


def response_format(value: Any, tools: Tools | None) -> JsonFormat | None:
    """What the answer must be; None is free text. `strict` is always kept, whatever it says.

    Raises BadRequest, or Unsupported for what can not be enforced and beside tools that may be called.
    """
    kind = value.get("type") if isinstance(value, dict) else None
    if value is None or value == {"type": "text"}:
        return None
    if value == {"type": "json_object"}:
        found = JsonFormat()
    elif kind == "json_schema":
        found = JsonFormat(_schema(value))
    else:
        raise BadRequest(
            f'`{FIELD}` must be {{"type": "text"}}, {{"type": "json_object"}}, or {{"type": "json_schema", '
            '"json_schema": {"name": ..., "schema": ...}}.',
            param=FIELD,
        )
    if tools is not None and tools.choice != "none":
        raise Unsupported(
            f'`{FIELD}` can not be combined with `tools` that may be called; send "tool_choice": "none", '
            "or describe the answer as a function.",
            param=FIELD,
        )
    return found


def _schema(value: dict[str, Any]) -> dict[str, Any]:
    fields = value.get("json_schema")
    if not isinstance(fields, dict) or value.keys() - {"type", "json_schema"}:
        raise BadRequest(f"`{FIELD}.json_schema` must be an object with `name` and `schema`.", param=FIELD)
    name = fields.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise BadRequest(
            f"`{FIELD}.json_schema.name` must be 1 to 64 letters, digits, `_` or `-`.",
            param=f"{FIELD}.json_schema.name",
        )
    if not isinstance(fields.get("strict"), bool | None):
        raise BadRequest(
            f"`{FIELD}.json_schema.strict` must be true or false.", param=f"{FIELD}.json_schema.strict"
        )
    schema = fields.get("schema")
    check_limits(schema, SCHEMA)
    assert isinstance(schema, dict)
    check_enforced(schema, SCHEMA)
    return schema
