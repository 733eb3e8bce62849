"""JSON schemas for tests: one of usual size, small ones of every kind, and those that want to hurt."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def closed(properties: Schema, *optional: str) -> Schema:
    """An object of these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


WORD = {"type": "string", "maxLength": 8}
PERSON = closed(
    {
        "name": {"type": "string", "minLength": 1, "maxLength": 24},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["friend", "family", "other"]},
        "tags": {"type": "array", "items": WORD, "maxItems": 3},
        "address": closed({"street": WORD, "city": WORD, "zip": {"type": "string", "maxLength": 5}}, "zip"),
        "member": {"type": "boolean"},
        "note": {"anyOf": [WORD, {"type": "null"}]},
    },
    "note",
)

# Each says something that a converter may forget. All of them are enforced by both engines.
SMALL: dict[str, Schema] = {
    "words": {"type": "array", "items": WORD, "minItems": 1, "maxItems": 3},
    "range": closed({"n": {"type": "integer", "minimum": -20, "exclusiveMaximum": 7}}),
    "open range": closed({"n": {"type": "integer", "exclusiveMinimum": 41}}),
    "below": closed({"n": {"type": "integer", "maximum": -5}}),
    "enum of types": {"type": ["string", "null"], "enum": ["yes", "no", 5, None]},
    "const": closed({"version": {"const": {"a": [1, "é"]}}}),
    "any": {"anyOf": [closed({"a": {"type": "boolean"}}), closed({"b": {"type": "integer", "maximum": 9}})]},
    "types": closed({"v": {"type": ["boolean", "null", "integer"], "minimum": 3, "maximum": 12}}),
    "length": {"type": "string", "minLength": 3, "maxLength": 9},
    "map": {"type": "object", "additionalProperties": {"type": "boolean"}},
    "nothing": closed({}),
    "without items": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "boolean"}},
    "date": closed({"day": {"type": "string", "format": "date"}}),
    "unicode": closed({"größe": {"type": "integer", "minimum": 0, "maximum": 9}, "キー": {"type": "null"}}),
}


def _deep(levels: int) -> Schema:
    return WORD if levels == 0 else closed({"a": _deep(levels - 1)})


def _doubled(levels: int) -> Schema:
    return WORD if levels == 0 else {"anyOf": [_doubled(levels - 1), {"type": "array", "items": WORD}]}


# All are within the limits of `sidecar.schema_limits`; what they cost must be bounded all the same.
HOSTILE: dict[str, Schema] = {
    "deep": _deep(15),
    "enum": {"enum": [f"value number {i}" for i in range(2000)]},
    "long enum": {"enum": [f"{i}" + "長い" * 5000 for i in range(2)]},
    "many items": {"type": "array", "items": WORD, "minItems": 4096, "maxItems": 4096},
    "long text": {"type": "string", "minLength": 4000, "maxLength": 4096},
    "nested repetition": {
        "type": "array",
        "minItems": 4000,
        "maxItems": 4096,
        "items": {
            "type": "array",
            "maxItems": 4096,
            "items": {"type": "string", "minLength": 4096},
        },
    },
    "many repetitions": {
        "type": "object",
        "properties": {
            f"p{i}": {"type": "array", "items": WORD, "minItems": i, "maxItems": 4096} for i in range(400)
        },
    },
    "many lengths": {"anyOf": [{"type": "string", "minLength": i, "maxLength": 4096} for i in range(900)]},
    "many optional": {"type": "object", "properties": {f"property_{i}": WORD for i in range(900)}},
    "all alike": {
        "anyOf": [
            {"type": "object", "properties": {"a": {"type": "string", "maxLength": i}}} for i in range(600)
        ]
    },
    "all open": {
        "type": "array",
        "items": {
            "anyOf": [{"type": "object", "properties": {f"p{i}": {"type": "string"}}} for i in range(500)]
        },
    },
    "doubled": _doubled(14),
    "ranges": {"anyOf": [{"type": "integer", "minimum": -i, "maximum": 10**14} for i in range(300)]},
    "unicode keys": closed({f"キー{i}😀": {"type": "integer"} for i in range(500)}),
}
