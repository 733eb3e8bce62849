"""Answers in a form, over both engines: whatever is complete validates, and no schema hurts the engine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from tests.contract.asking import CAPITAL, PARIS, Door, Refused, ids, said_by
from tests.e2e.program import Program
from tests.engines.schemas import HOSTILE, PERSON, SMALL

# What ends a text or an object is made likely: the embedded model has little to say in JSON.
CLOSING = {"logit_bias": dict.fromkeys(map(str, [*ids('"'), *ids("}"), *ids("]")]), 5)}
ASKED = said_by("Tell me about a person, as JSON.")


def form(schema: dict[str, Any]) -> dict[str, Any]:
    """The field."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


class Visit(BaseModel):
    city: str = Field(max_length=12)
    days: int = Field(ge=1, le=9)
    season: Literal["spring", "summer", "autumn", "winter"]
    friends: list[Annotated[str, Field(max_length=12)]] = Field(max_length=2)


@pytest.fixture
def client(server: Program) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=60) as made:
        yield made


@pytest.mark.parametrize("schema", [*SMALL.values(), PERSON], ids=[*SMALL, "person"])
def test_what_a_schema_describes(door: Door, schema: dict[str, Any]) -> None:
    """At random, for words that are likely would validate anyway."""
    answer = door.ask(
        messages=ASKED, response_format=form(schema), temperature=1.5, seed=4, n=2, max_tokens=300, **CLOSING
    )
    ended = [choice.text for choice in answer.choices if choice.reason == "stop"]
    assert ended
    for text in ended:
        jsonschema.validate(json.loads(text), schema)


def test_a_pydantic_model_through_the_official_client(client: openai.OpenAI, profile: str) -> None:
    completion = client.chat.completions.parse(
        model=profile,
        messages=[{"role": "user", "content": "Plan a trip."}],
        response_format=Visit,
        temperature=1.5,
        seed=1,
        max_tokens=400,
    )
    assert completion.choices[0].finish_reason == "stop"
    assert isinstance(completion.choices[0].message.parsed, Visit)


def test_any_object(door: Door, streamed: bool) -> None:
    found = door.ask(
        streamed,
        messages=ASKED,
        response_format={"type": "json_object"},
        seed=5,
        n=2,
        max_tokens=200,
        **CLOSING,
    )
    ended = [choice.text for choice in found.choices if choice.reason == "stop"]
    assert ended
    assert all(isinstance(json.loads(text), dict) for text in ended)


def test_plain_text_is_the_default(door: Door) -> None:
    assert door.greedy(messages=said_by(CAPITAL), response_format={"type": "text"}).text == PARIS


def test_a_cut_answer_says_so(door: Door) -> None:
    cut = door.ask(messages=ASKED, response_format=form(PERSON), max_tokens=3)
    assert cut.reason == "length"


def test_a_stop_string_is_the_clients_word(door: Door) -> None:
    cut = door.greedy(messages=ASKED, response_format=form(PERSON), stop=['"age'], max_tokens=200)
    assert cut.reason == "stop"
    assert '"age' not in cut.text


@pytest.mark.parametrize(
    ("keyword", "schema"),
    [
        ("uniqueItems", {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        ("not", {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}),
        ("patternProperties", {"type": "object", "patternProperties": {"a": {}}}),
        ("pattern", {"type": "string", "pattern": "a{1000000000}"}),
        ("$ref", {"$ref": "#"}),
        ("maxItems", {"type": "array", "maxItems": 4097}),
        ("if", {"if": {}, "then": False}),
        ("multipleOf", {"type": "integer", "multipleOf": 7}),
        ("minProperties", {"type": "object", "minProperties": 1}),
        ("format", {"type": "string", "format": "iri"}),
        ("nullable", {"type": "string", "nullable": True}),
        ("allOf", {"allOf": [{"type": "string"}, {"type": "integer"}]}),
    ],
)
def test_what_can_not_be_enforced_is_refused_by_name(
    door: Door, streamed: bool, keyword: str, schema: dict[str, Any]
) -> None:
    with pytest.raises(Refused) as refused:
        door.ask(streamed, messages=ASKED, response_format=form(schema))
    assert refused.value.status == 400
    assert refused.value.error["param"].startswith("response_format")
    assert keyword in refused.value.error["message"] or keyword == "allOf"


@pytest.mark.parametrize("schema", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_schema_leaves_the_engine_as_it_was(door: Door, schema: dict[str, Any]) -> None:
    engine = door.server.child().pid
    began = time.monotonic()
    try:
        door.ask(messages=ASKED, response_format=form(schema), temperature=1.5, max_tokens=8)
    except Refused as refused:
        assert refused.status == 400
        assert str(refused.error["param"]).startswith("response_format")
    assert time.monotonic() - began < 30
    assert door.greedy(messages=said_by(CAPITAL)).text == PARIS
    assert door.server.child().pid == engine


def test_free_answers_beside_formed_ones_are_what_they_always_are(door: Door) -> None:
    mixed = [
        door.greedy(messages=said_by(CAPITAL)),
        door.ask(messages=ASKED, response_format=form(PERSON), temperature=1.5, seed=2, max_tokens=64),
        door.greedy(messages=said_by(CAPITAL)),
    ]
    assert mixed[0].text == mixed[2].text == PARIS


@pytest.mark.llama
@pytest.mark.parametrize("schema", [SMALL["range"], SMALL["types"], SMALL["unicode"], PERSON])
def test_the_arguments_of_a_call_that_must_be(llama_server: Program, schema: dict[str, Any]) -> None:
    """Also where the schema is not what the model learnt to call with."""
    tools: Any = [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object", **schema}}}
        for name in ("get_time", "get_weather")
    ]
    with openai.OpenAI(base_url=f"{llama_server.url}/v1", api_key="x", max_retries=0, timeout=60) as client:
        named: Any = {"type": "function", "function": {"name": "get_weather"}}
        answer = client.chat.completions.create(
            model="embedded-gguf",
            messages=[{"role": "user", "content": "What is the weather in Paris?"}],
            tools=tools,
            tool_choice=named,
            parallel_tool_calls=False,
            max_tokens=300,
            temperature=0,
        ).choices[0]
    assert answer.finish_reason == "tool_calls"
    for call in answer.message.tool_calls or []:
        assert call.type == "function"
        assert call.function.name == "get_weather"
        jsonschema.validate(json.loads(call.function.arguments), schema)
