"""A checked JSON schema in the one spelling of it that llama-server really enforces. Pure.

Its converter drops what it does not know and, of most nodes, every keyword but one: what stands beside
`anyOf`, the bounds of a number that is no integer, one of two lower bounds, `minItems` without `items`.
So each node is written anew, of one type, with the keywords that its converter keeps for that type, and
what can not be said so is refused by name (all of it read from and tried on llama.cpp 0.7.0).

What it makes of a schema may be narrower than the schema: no additional properties beside named ones,
integers of at most 15 digits. It is never wider.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sidecar.errors import Unsupported
from sidecar.schema_limits import BOUNDS, TYPES, shown, unsupported

# Its parser of grammars refuses more repetitions; more optional properties take it seconds.
MAX_REPETITION = 2000
MAX_OPTIONAL = 100
FORMATS = ("date", "time", "date-time", "uuid")
_LARGEST = 10**15 - 1
_KEPT = ("title", "description", "default", "examples")
_KEYWORDS = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "minItems", "maxItems", "prefixItems"),
    "string": ("minLength", "maxLength", "format"),
    "integer": tuple(sorted(BOUNDS)),
}
_PYTHON = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}

Schema = dict[str, Any]


def enforced(schema: Any, param: str, place: str = "") -> Schema:
    """The schema for llama-server. Raises Unsupported for what would not be enforced there.

    The schema has passed `sidecar.schema_limits`.
    """
    if schema is False:
        raise _refused(param, place, "a schema that nothing fits")
    node: Schema = {} if schema is True else schema
    for keyword in ("allOf", "oneOf"):
        if keyword in node:
            raise _refused(param, place, f"`{keyword}`")
    for keyword in ("anyOf", "const", "enum"):
        if keyword in node:
            return _kept(node) | _alone(node, keyword, param, place)
    types = _types(node)
    if "number" in types and BOUNDS & node.keys():
        raise _refused(param, place, "a bound of a number; of an integer it is")
    typed = [_of_type(kind, node, param, place) for kind in types]
    return _kept(node) | (typed[0] if len(typed) == 1 else {"anyOf": typed})


def _alone(node: Schema, keyword: str, param: str, place: str) -> Schema:
    """A keyword beside which its converter sees no other."""
    accepted = {keyword, *_KEPT, "deprecated", "readOnly", "writeOnly", "$schema", "$comment", "uniqueItems"}
    if keyword != "anyOf":
        accepted.add("type")
    if beside := node.keys() - accepted:
        raise _refused(param, place, f"`{shown(min(beside))}` beside `{keyword}`")
    if keyword == "anyOf":
        inner = [enforced(s, param, f"{place}/anyOf/{i}") for i, s in enumerate(node["anyOf"])]
        return {"anyOf": inner}
    values = [node["const"]] if keyword == "const" else node["enum"]
    types = _types({"type": node["type"]}) if "type" in node else sorted(TYPES)
    if not (fitting := [value for value in values if any(_is(value, kind) for kind in types)]):
        raise _refused(param, place, f"`{keyword}` without a value of its `type`")
    return {"enum": fitting}


def _types(node: Schema) -> list[str]:
    """What it may be. Without `type`, what its keywords speak of: that is narrower, and never wrong."""
    named = node.get("type")
    if named is not None:
        return sorted({named} if isinstance(named, str) else set(named))
    spoken_of = sorted(kind for kind, keywords in _KEYWORDS.items() if set(keywords) & node.keys())
    return spoken_of or sorted(TYPES - {"integer"})


def _of_type(kind: str, node: Schema, param: str, place: str) -> Schema:
    if kind == "object":
        return _object(node, param, place)
    if kind == "array":
        return _array(node, param, place)
    if kind == "string":
        return _string(node, param, place)
    return _integer(node, param, place) if kind == "integer" else {"type": kind}


def _object(node: Schema, param: str, place: str) -> Schema:
    properties, more = node.get("properties", {}), node.get("additionalProperties", True)
    if not properties:
        if more is True:
            return {"type": "object"}
        inner = more if more is False else enforced(more, param, f"{place}/additionalProperties")
        return {"type": "object", "additionalProperties": inner}
    required = list(dict.fromkeys(node.get("required", ())))
    if len(properties) - len(required) > MAX_OPTIONAL:
        raise _refused(param, place, f"an object with more than {MAX_OPTIONAL} optional properties")
    return {
        "type": "object",
        "properties": {
            name: enforced(inner, param, f"{place}/properties/{shown(name)}")
            for name, inner in properties.items()
        },
        "required": required,
        "additionalProperties": False,
    }


def _array(node: Schema, param: str, place: str) -> Schema:
    if "prefixItems" in node:
        raise _refused(param, place, "`prefixItems`")
    bounds = _repeated(node, "Items", param, place)
    if not bounds and node.get("items", True) is True:
        return {"type": "array"}
    return {"type": "array", "items": enforced(node.get("items", True), param, f"{place}/items"), **bounds}


def _string(node: Schema, param: str, place: str) -> Schema:
    bounds = _repeated(node, "Length", param, place)
    if "format" not in node:
        return {"type": "string", **bounds}
    if node["format"] not in FORMATS or bounds:
        raise _refused(param, place, f"a format other than {', '.join(FORMATS)}, or one with a length")
    return {"type": "string", "format": node["format"]}


def _repeated(node: Schema, what: str, param: str, place: str) -> Schema:
    bounds = {end: node[end] for end in (f"min{what}", f"max{what}") if end in node}
    if max(bounds.values(), default=0) > MAX_REPETITION:
        raise _refused(param, place, f"`min{what}` or `max{what}` above {MAX_REPETITION}")
    if bounds.get(f"min{what}", 0) > bounds.get(f"max{what}", MAX_REPETITION):
        raise _refused(param, place, "a schema that nothing fits")
    return bounds


def _integer(node: Schema, param: str, place: str) -> Schema:
    """Both ends: with one alone its grammar writes leading zeros."""
    if not BOUNDS & node.keys():
        return {"type": "integer"}
    least = max(
        -_LARGEST,
        math.ceil(node.get("minimum", -_LARGEST)),
        math.floor(node.get("exclusiveMinimum", -_LARGEST - 1)) + 1,
    )
    most = min(
        _LARGEST,
        math.floor(node.get("maximum", _LARGEST)),
        math.ceil(node.get("exclusiveMaximum", _LARGEST + 1)) - 1,
    )
    if least > most:
        raise _refused(param, place, "a range of integers that holds none of at most 15 digits")
    return {"type": "integer", "minimum": least, "maximum": most}


def _is(value: object, kind: str) -> bool:
    if kind in ("number", "integer"):
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (kind == "number" or whole)
    return isinstance(value, _PYTHON[kind])


def _kept(node: Mapping[str, Any]) -> Schema:
    """What the model reads of it in a prompt."""
    return {keyword: node[keyword] for keyword in _KEPT if keyword in node}


def _refused(param: str, place: str, what: str) -> Unsupported:
    return unsupported(param, place, f"{what} can not be enforced by llama-server")
