"""A schema in the one spelling that llama-server enforces."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.engines.llama_schema import enforced
from sidecar.errors import Unsupported

ANY = {"anyOf": [{"type": t} for t in ("array", "boolean", "null", "number", "object", "string")]}
NULL = {"type": "null"}
CLOSED = {"type": "object", "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({}, ANY),
        (True, ANY),
        ({"type": "object", "description": "d"}, {"type": "object", "description": "d"}),
        ({"type": "integer", "minimum": 3}, {"type": "integer", "minimum": 3, "maximum": 10**15 - 1}),
        (
            {"type": "integer", "exclusiveMinimum": 2.5, "minimum": 1, "exclusiveMaximum": 9},
            {"type": "integer", "minimum": 3, "maximum": 8},
        ),
        ({"minLength": 2}, {"type": "string", "minLength": 2}),
        ({"type": "array", "minItems": 2}, {"type": "array", "items": ANY, "minItems": 2}),
        ({"type": "array"}, {"type": "array"}),
        ({"const": 5}, {"enum": [5]}),
        ({"type": "string", "enum": ["a", 1, None]}, {"enum": ["a"]}),
        ({"type": "integer", "enum": [1, 2.0, 2.5, True]}, {"enum": [1, 2.0]}),
        ({"type": ["null", "string"], "maxLength": 3}, {"anyOf": [NULL, {"type": "string", "maxLength": 3}]}),
        ({"anyOf": [NULL, {"const": 1}], "title": "t"}, {"title": "t", "anyOf": [NULL, {"enum": [1]}]}),
        (
            {"properties": {"a": True, "b": NULL}, "required": ["b", "b"], "additionalProperties": {}},
            {"properties": {"a": ANY, "b": NULL}, "required": ["b"], **CLOSED},
        ),
        (
            {"type": "object", "additionalProperties": {"type": "boolean"}},
            {"type": "object", "additionalProperties": {"type": "boolean"}},
        ),
        (CLOSED, CLOSED),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
    ],
    ids=str,
)  # fmt: skip
def test_how_it_is_said(schema: Any, sent: dict[str, Any]) -> None:
    assert enforced(schema, "x") == sent
    assert enforced(sent, "x") == sent


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"allOf": [{}]}, "`allOf`"),
        ({"oneOf": [{}]}, "`oneOf`"),
        ({"type": "number", "minimum": 0}, "a bound of a number"),
        ({"anyOf": [{}], "type": "string"}, "`type` beside `anyOf`"),
        ({"enum": ["a"], "maxLength": 3}, "`maxLength` beside `enum`"),
        ({"enum": ["a"], "type": "integer"}, "without a value of its `type`"),
        ({"type": "array", "prefixItems": [{}]}, "`prefixItems`"),
        ({"type": "array", "maxItems": 2001}, "above 2000"),
        ({"type": "array", "minItems": 2, "maxItems": 1}, "nothing fits"),
        ({"type": "string", "format": "email"}, "a format other than"),
        ({"type": "string", "format": "date", "maxLength": 3}, "with a length"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "holds none"),
        ({"properties": {"a": False}}, "nothing fits"),
        ({"properties": {f"p{i}": {} for i in range(101)}}, "more than 100 optional"),
    ],
    ids=str,
)
def test_what_can_not_be_said_is_refused(schema: Any, words: str) -> None:
    with pytest.raises(Unsupported, match="llama-server") as refused:
        enforced({"type": "object", "properties": {"deep": schema}, "required": ["deep"]}, "the.field")
    assert words in refused.value.message
    assert "/properties/deep" in refused.value.message
    assert refused.value.param == "the.field"
