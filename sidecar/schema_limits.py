"""What a client's JSON schema may be: how large, how deep, and of which keywords. Pure.

Two questions. `check_limits` asks whether a schema is well formed and small enough to be handed on, to a
prompt or to a compiler. `check_enforced` asks whether every word of it can be kept while an answer is
made: a keyword that is silently ignored would be an answer that only looks right.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from sidecar.errors import BadRequest, Unsupported

MAX_BYTES = 64 * 1024
MAX_DEPTH = 16
MAX_NODES = 2048
MAX_REPETITION = 4096

TYPES = frozenset(["object", "array", "string", "number", "integer", "boolean", "null"])
BOUNDS = frozenset(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])
# They say something to people and nothing about the value.
ANNOTATIONS = frozenset(
    [
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "$schema",
        "$comment",
    ]
)
ENFORCED = frozenset(
    [
        "type", "enum", "const", "anyOf", "oneOf", "allOf", "format", "minLength", "maxLength",
        "properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems",
    ]
) | BOUNDS  # fmt: skip
FORMATS = frozenset(
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"]
)

_REPETITIONS = frozenset(
    f"{end}{what}" for end in ("min", "max") for what in ("Length", "Items", "Properties", "Contains")
)
_REFERENCES = frozenset(["$ref", "$dynamicRef", "$recursiveRef"])
_PATTERNS = frozenset(["pattern", "patternProperties"])
_ONE = frozenset(
    [
        "items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames",
        "unevaluatedItems", "unevaluatedProperties", "contentSchema",
    ]
)  # fmt: skip
_LISTED = frozenset(["anyOf", "oneOf", "allOf", "prefixItems"])
_NAMED = frozenset(["properties", "$defs", "definitions", "dependentSchemas"])
_UNSAFE = re.compile(r"[^A-Za-z0-9_.$\-]")
_CONTROL = re.compile(r"[\x00-\x1f]")
_SHOWN_CHARS = 160


def check_limits(schema: Any, param: str) -> None:
    """Raises BadRequest, naming `param` and the place in the schema, unless it is well formed and small."""
    if not isinstance(schema, dict):
        raise BadRequest(f"`{param}` must be a JSON schema: an object.", param=param)
    if len(json.dumps(schema, ensure_ascii=False).encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise BadRequest(f"`{param}` is larger than {MAX_BYTES} bytes.", param=param)
    nodes = 0
    for node, place, depth in _nodes(schema):
        if depth > MAX_DEPTH:
            raise BadRequest(f"`{param}` is nested deeper than {MAX_DEPTH} schemas.", param=param)
        nodes += 1 if isinstance(node, bool) else _size(node, place, param)
        if nodes > MAX_NODES:
            raise BadRequest(
                f"`{param}` has more than {MAX_NODES} nodes (schemas, `enum` values, required names).",
                param=param,
            )


def check_enforced(schema: dict[str, Any], param: str) -> None:
    """Raises Unsupported for the first keyword that can not be held while decoding. After `check_limits`."""
    for node, place, _ in _nodes(schema):
        if isinstance(node, dict):
            _check_keywords(node, place, param)


def unsupported(param: str, place: str, why: str) -> Unsupported:
    """The refusal of one place in a schema."""
    return Unsupported(f"`{param}`: {why} (at `{place or '/'}`).", param=param)


def _nodes(schema: Any, place: str = "", depth: int = 1) -> Iterator[tuple[Any, str, int]]:
    """Every schema in the schema, itself first, with its place and its depth."""
    yield schema, place, depth
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return
    for keyword, value in schema.items():
        at = f"{place}/{shown(keyword)}"
        if keyword in _ONE:
            yield from _nodes(value, at, depth + 1)
        elif keyword in _LISTED and isinstance(value, list):
            for index, inner in enumerate(value):
                yield from _nodes(inner, f"{at}/{index}", depth + 1)
        elif keyword in _NAMED and isinstance(value, dict):
            for name, inner in value.items():
                yield from _nodes(inner, f"{at}/{shown(name)}", depth + 1)


def _size(node: Any, place: str, param: str) -> int:
    """How many nodes it counts as, without the schemas in it. Raises BadRequest where it is no schema."""
    if not isinstance(node, dict):
        raise _malformed(param, place, "a schema must be an object or a boolean")
    for keyword, value in node.items():
        if keyword in _REFERENCES:
            raise _malformed(param, place, f"`{keyword}` is not accepted; write the schema out in its place")
        if keyword in _PATTERNS:
            raise _malformed(
                param, place, f"`{keyword}` is not accepted; regular expressions are not followed"
            )
        if (problem := _problem(keyword, value)) is not None:
            raise _malformed(param, place, f"`{keyword}` {problem}")
    counted = (node.get("enum"), node.get("required"))
    return 1 + sum(len(values) for values in counted if isinstance(values, list))


def _problem(keyword: str, value: Any) -> str | None:
    if keyword in _REPETITIONS and not (_is_integer(value) and 0 <= value <= MAX_REPETITION):
        return f"must be an integer from 0 to {MAX_REPETITION}"
    if keyword in BOUNDS and not _is_number(value):
        return "must be a number"
    if keyword in _LISTED and not (isinstance(value, list) and value):
        return "must be a list of at least one schema"
    if keyword in _NAMED and not isinstance(value, dict):
        return "must be an object of schemas"
    if keyword == "enum" and not (isinstance(value, list) and value):
        return "must be a list of at least one value"
    if keyword == "required" and not _is_texts(value):
        return "must be a list of names"
    if keyword == "type" and not _is_type(value):
        return f"must be one of {', '.join(sorted(TYPES))}, or a list of these"
    return "must be text" if keyword == "format" and not isinstance(value, str) else None


def _check_keywords(node: dict[str, Any], place: str, param: str) -> None:
    for keyword, value in node.items():
        neutral = keyword == "uniqueItems" and value is False
        if keyword not in ENFORCED and keyword not in ANNOTATIONS and not neutral:
            known = ", ".join(sorted(ENFORCED))
            raise unsupported(
                param, place, f"the keyword `{shown(keyword)}` can not be enforced; these can: {known}"
            )
    if (name := node.get("format", "date")) not in FORMATS:
        known = ", ".join(sorted(FORMATS))
        raise unsupported(param, place, f"the format `{shown(name)}` can not be enforced; these can: {known}")
    properties = node.get("properties", {})
    if not set(node.get("required", ())) <= properties.keys():
        raise unsupported(param, place, "every name in `required` must be one of `properties`")
    if any(_CONTROL.search(name) for name in properties):
        raise unsupported(param, place, "a name in `properties` holds a control character")


def shown(text: str) -> str:
    """A client's word as it may stand in a message."""
    return _UNSAFE.sub("_", text[:64])


def _malformed(param: str, place: str, why: str) -> BadRequest:
    return BadRequest(f"`{param}`: {why} (at `{place[-_SHOWN_CHARS:] or '/'}`).", param=param)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_type(value: object) -> bool:
    names = [value] if isinstance(value, str) else value
    return isinstance(names, list) and bool(names) and all(isinstance(n, str) and n in TYPES for n in names)
