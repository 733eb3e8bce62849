"""`response_format` at the door: what reaches the engine, and what is refused before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from sidecar.generation import JsonFormat
from sidecar.shelf import ServedModel
from tests.fakes.live import Live, live_server

PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": PERSON}}


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with live_server(models=[ServedModel("tooled", tools=True)]) as running:
        yield running


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="x", max_retries=0, timeout=10) as made:
        yield made


def form(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, **more}}


def ask(client: openai.OpenAI, response_format: Any, **more: Any) -> None:
    client.chat.completions.create(
        model="tooled",
        messages=[{"role": "user", "content": "[say:hi]"}],
        response_format=response_format,
        **more,
    )


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, JsonFormat()),
        (form(PERSON), JsonFormat(PERSON)),
        (form(PERSON, strict=False), JsonFormat(PERSON)),
        (form({}, strict=True), JsonFormat({})),
    ],
)
def test_what_the_engine_is_told(
    client: openai.OpenAI, live: Live, given: Any, meant: JsonFormat | None
) -> None:
    ask(client, given)
    assert live.engine.requests[-1].format == meant


@pytest.mark.parametrize(
    "given",
    [
        "json_object",
        {},
        {"type": "sound"},
        {"type": "json_schema"},
        {"type": "json_object", "schema": PERSON},
        {"type": "json_schema", "json_schema": PERSON, "schema": PERSON},
        {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "json_schema", "json_schema": {"schema": PERSON}},
        {"type": "json_schema", "json_schema": {"name": "a b", "schema": PERSON}},
        form(PERSON, strict="yes"),
        form({"type": 123}),
        form({"$ref": "#"}),
        form({"type": "string", "pattern": "("}),
        form({"type": "array", "uniqueItems": True}),
        form([]),
    ],
    ids=str,
)
def test_what_is_no_format_is_refused_by_name(client: openai.OpenAI, given: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, given)
    assert str(refused.value.param).startswith("response_format")


def test_beside_tools_that_may_be_called(client: openai.OpenAI, live: Live) -> None:
    with pytest.raises(openai.BadRequestError, match="can not be combined"):
        ask(client, form(PERSON), tools=[TOOL])
    ask(client, form(PERSON), tools=[TOOL], tool_choice="none")
    assert live.engine.requests[-1].format == JsonFormat(PERSON)


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "f"}}])
def test_arguments_must_be_enforceable_where_a_call_is_forced(client: openai.OpenAI, choice: Any) -> None:
    unique = {"type": "object", "properties": {"ids": {"type": "array", "uniqueItems": True}}}
    other = {"type": "function", "function": {"name": "g", "parameters": unique}}
    called = "f" if isinstance(choice, dict) else "g"
    tools = {"tools": [TOOL, other], "tool_choice": choice}
    if choice == "auto" or called == "f":
        ask(client, {"type": "text"}, **tools)
        return
    with pytest.raises(openai.BadRequestError, match="uniqueItems") as refused:
        ask(client, {"type": "text"}, **tools)
    assert refused.value.param == "tools.1.function.parameters"


@pytest.mark.parametrize("parameters", [{"$ref": "#"}, {"properties": {"a": {"type": "something"}}}], ids=str)
def test_the_limits_hold_for_every_function(client: openai.OpenAI, parameters: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(
            client,
            {"type": "text"},
            tools=[{"type": "function", "function": {"name": "g", "parameters": parameters}}],
        )
    assert refused.value.param == "tools.0.function.parameters"
