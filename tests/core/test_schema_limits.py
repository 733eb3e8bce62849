"""What a client's schema may be."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.errors import BadRequest, Unsupported
from sidecar.schema_limits import check_enforced, check_limits


def nested(levels: int) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "string"}
    for _ in range(levels - 1):
        found = {"type": "array", "items": found}
    return found


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": ["string", "null"]},
        nested(16),
        {"enum": list(range(2047))},
        {"type": "object", "properties": {f"p{i}": True for i in range(2047)}},
        {"type": "string", "maxLength": 4096, "minLength": 0},
        {"type": "object", "properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}}},
        {"enum": ["$ref", {"$ref": "#"}], "default": {"pattern": "("}},
        {"const": {"pattern": "a" * 60_000}},
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_within_the_limits(schema: dict[str, Any]) -> None:
    check_limits(schema, "x")
    check_enforced(schema, "x")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (None, "must be a JSON schema"),
        ([], "must be a JSON schema"),
        (nested(17), "deeper than 16"),
        ({"enum": list(range(2048))}, "more than 2048 nodes"),
        ({"type": "object", "properties": {f"p{i}": {} for i in range(2048)}}, "more than 2048 nodes"),
        ({"anyOf": [{"required": ["a"] * 30} for _ in range(100)]}, "more than 2048 nodes"),
        ({"const": "é" * 40_000}, "larger than 65536 bytes"),
        ({"$ref": "#"}, "`$ref` is not accepted"),
        (
            {"items": {"$dynamicRef": "#a"}},
            "`$dynamicRef` is not accepted; write the schema out in its place (at `/items`)",
        ),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}}, "`$ref`"),
        ({"properties": {"a": {"pattern": "("}}}, "`pattern` is not accepted"),
        ({"not": {"patternProperties": {}}}, "`patternProperties`"),
        ({"type": 123}, "`type` must be one of array, boolean, integer"),
        ({"type": "something"}, "`type` must be"),
        ({"type": []}, "`type` must be"),
        ({"items": 5}, "a schema must be an object or a boolean (at `/items`)"),
        ({"items": [{}]}, "a schema must be"),
        ({"anyOf": []}, "`anyOf` must be a list of at least one schema"),
        ({"anyOf": {}}, "`anyOf` must be"),
        ({"properties": []}, "`properties` must be an object of schemas"),
        ({"enum": []}, "`enum` must be a list"),
        ({"required": "a"}, "`required` must be a list of names"),
        ({"minLength": 10**9}, "`minLength` must be an integer from 0 to 4096"),
        ({"maxItems": 4097}, "`maxItems`"),
        ({"minItems": -1}, "`minItems`"),
        ({"maxLength": True}, "`maxLength`"),
        ({"maxProperties": 1.5}, "`maxProperties`"),
        ({"minimum": "1"}, "`minimum` must be a number"),
        ({"format": 3}, "`format` must be text"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_outside_of_the_limits(schema: Any, words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_limits(schema, "the.field")
    assert words in refused.value.message
    assert "the.field" in refused.value.message
    assert refused.value.param == "the.field"
    assert len(refused.value.message) < 400


@pytest.mark.parametrize(
    "keyword",
    [
        "uniqueItems", "not", "if", "then", "else", "contains", "propertyNames", "minProperties",
        "maxProperties", "dependentRequired", "dependentSchemas", "unevaluatedProperties", "multipleOf",
        "contentEncoding", "nullable", "x-vendor", "requiered", "$id", "$defs",
    ],
)  # fmt: skip
def test_a_keyword_that_is_not_kept_is_named_with_its_place(keyword: str) -> None:
    values = {"minProperties": 1, "maxProperties": 1, "multipleOf": 7, "dependentSchemas": {}, "$defs": {}}
    schema = {"type": "object", "properties": {"a `b": {keyword: values.get(keyword, True)}}}
    check_limits(schema, "x")
    with pytest.raises(Unsupported, match="can not be enforced") as refused:
        check_enforced(schema, "x")
    assert f"the keyword `{keyword}`" in refused.value.message
    assert "/properties/a__b" in refused.value.message


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "format": "iri"},
        {"type": "object", "required": ["a"]},
        {"type": "object", "properties": {"a\x01": {}}},
    ],
    ids=str,
)
def test_values_that_are_not_kept(schema: dict[str, Any]) -> None:
    check_limits(schema, "x")
    with pytest.raises(Unsupported):
        check_enforced(schema, "x")


def test_what_says_nothing_is_accepted() -> None:
    words = {
        "title": "T",
        "description": "D",
        "default": 1,
        "examples": [2],
        "$schema": "S",
        "uniqueItems": False,
    }
    check_limits(words, "x")
    check_enforced(words, "x")
