"""Tool calls through the real OpenAI client, whole and in fragments."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from sidecar.generation import Function, Tools
from sidecar.shelf import ServedModel
from tests.fakes.live import Live, live_server

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
OTHER = {"type": "function", "function": {"name": "get_time"}}
CALL = '[call:get_weather:{"city": "Paris"}]'


@pytest.fixture(scope="module")
def tooled() -> Iterator[Live]:
    with live_server(models=[ServedModel("tooled", tools=True)]) as live:
        yield live


@pytest.fixture(scope="module")
def client(tooled: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{tooled.url}/v1", api_key="x", max_retries=0, timeout=10) as made:
        yield made


def create(client: openai.OpenAI, text: str, **more: Any) -> Any:
    more = {"tools": [TOOL, OTHER], **more}
    return client.chat.completions.create(
        model="tooled", messages=[{"role": "user", "content": text}], **more
    )


def test_a_whole_answer_has_the_calls(client: openai.OpenAI) -> None:
    choice = create(client, CALL + '[call:get_time:{"city": "Rome"}]').choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert [call.id for call in choice.message.tool_calls] == ["call_0_0", "call_0_1"]
    assert [call.function.name for call in choice.message.tool_calls] == ["get_weather", "get_time"]
    assert [json.loads(call.function.arguments)["city"] for call in choice.message.tool_calls] == [
        "Paris",
        "Rome",
    ]
    assert {call.type for call in choice.message.tool_calls} == {"function"}


@pytest.mark.parametrize("n", [1, 2])
def test_fragments_join_by_index_and_only_the_first_has_a_name(client: openai.OpenAI, n: int) -> None:
    chunks = list(create(client, "[say:I ask.]" + CALL + '[call:get_time:{"a": 1}]', stream=True, n=n))
    arguments: dict[tuple[int, int], str] = defaultdict(str)
    first: dict[tuple[int, int], tuple[str, str]] = {}
    finished = {}
    for chunk in chunks:
        choice = chunk.choices[0]
        for piece in choice.delta.tool_calls or []:
            key = (choice.index, piece.index)
            if piece.id is not None:
                assert key not in first
                first[key] = (piece.id, piece.function.name)
                assert piece.type == "function"
            else:
                assert piece.function.name is None
            arguments[key] += piece.function.arguments
        if choice.finish_reason:
            finished[choice.index] = choice.finish_reason
    for index in range(n):
        assert first[index, 0] == (f"call_{index}_0", "get_weather")
        assert first[index, 1] == (f"call_{index}_1", "get_time")
        assert arguments[index, 0] == '{"city": "Paris"}'
        assert arguments[index, 1] == '{"a": 1}'
    assert finished == dict.fromkeys(range(n), "tool_calls")
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == "I ask." * n


def test_the_turn_of_a_tool_reaches_the_engine(client: openai.OpenAI, tooled: Live) -> None:
    calls = create(client, CALL).choices[0].message
    messages = [
        {"role": "user", "content": "weather?"},
        calls.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": "call_0_0", "content": "sunny"},
    ]
    client.chat.completions.create(model="tooled", messages=messages, tools=[TOOL])
    turns = tooled.engine.requests[-1].messages
    assert [turn.role for turn in turns] == ["user", "assistant", "tool"]
    assert turns[1].content == ""
    assert (turns[1].tool_calls[0].name, turns[1].tool_calls[0].id) == ("get_weather", "call_0_0")
    assert (turns[2].content, turns[2].tool_call_id) == ("sunny", "call_0_0")


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        (None, ("auto", None)),
        ("auto", ("auto", None)),
        ("none", ("none", None)),
        ("required", ("required", None)),
        ({"type": "function", "function": {"name": "get_time"}}, ("required", "get_time")),
    ],
)
def test_tool_choice(client: openai.OpenAI, tooled: Live, choice: Any, meant: tuple[str, str | None]) -> None:
    create(client, "hi", parallel_tool_calls=False, **({} if choice is None else {"tool_choice": choice}))
    offered = tooled.engine.requests[-1].tools
    assert isinstance(offered, Tools)
    assert (offered.choice, offered.only) == meant
    assert not offered.parallel
    assert [function.name for function in offered.functions] == ["get_weather", "get_time"]
    assert offered.functions[0] == Function(
        "get_weather",
        "The weather of a city.",
        {"type": "object", "properties": {"city": {"type": "string"}}},
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": [TOOL] * 129}, "tools"),
        ({"tools": "get_weather"}, "tools"),
        ({"tools": [{"type": "retrieval"}]}, "tools.0"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
            "tools.0.function.parameters",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "description": "x" * 20_000}}]},
            "tools.0.function.description",
        ),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "nope"}}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice"),
    ],
)
def test_what_is_no_tool_is_refused_by_name(
    client: openai.OpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        create(client, "hi", **fields)
    assert refused.value.param == param
