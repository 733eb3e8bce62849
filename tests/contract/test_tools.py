"""The weather task and what belongs to calls, driven by OpenAI's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest

from tests.contract.asking import CAPITAL, PARIS, said_by
from tests.e2e.program import Program


def function(name: str, description: str) -> Any:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


WEATHER = function("get_weather", "Get the current weather in a given city.")
TIME = function("get_time", "Get the current time in a given city.")
OSLO = "What is the weather in Oslo?"
BOTH = "What is the weather in Paris and in Rome?"


@dataclass
class Answer:
    """One choice, put together as clients do; `calls` are (id, name, arguments)."""

    text: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    reason: str | None = None
    usage: Any = None
    fragments: int = 0

    @property
    def meant(self) -> list[tuple[str, Any]]:
        """Names and arguments, which have to be JSON."""
        return [(name, json.loads(arguments)) for _, name, arguments in self.calls]


class Asker:
    """Asks for a chat at temperature 0, in one form or the other."""

    def __init__(self, client: openai.OpenAI, model: str, streamed: bool) -> None:
        self._client, self._model, self._streamed = client, model, streamed

    def ask(self, text: str | list[Any], *tools: Any, **more: Any) -> Answer:
        """The only choice."""
        (one,) = self.all(text, *tools, **more)
        return one

    def all(self, text: str | list[Any], *tools: Any, n: int = 1, **more: Any) -> list[Answer]:
        """Every choice."""
        body = {
            "model": self._model,
            "messages": said_by(text) if isinstance(text, str) else text,
            "temperature": 0,
            "n": n,
            **({"tools": list(tools)} if tools else {}),
            **more,
        }
        if not self._streamed:
            return _whole(self._client.chat.completions.create(**body))
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        return _together(self._client.chat.completions.create(**body), n)


def _whole(found: Any) -> list[Answer]:
    return [
        Answer(
            choice.message.content or "",
            [
                (call.id, call.function.name, call.function.arguments)
                for call in choice.message.tool_calls or []
            ],
            choice.finish_reason,
            found.usage,
        )
        for choice in found.choices
    ]


def _together(chunks: Any, n: int) -> list[Answer]:
    answers = [Answer() for _ in range(n)]
    for chunk in chunks:
        for choice in chunk.choices:
            answer = answers[choice.index]
            assert answer.reason is None
            answer.text += choice.delta.content or ""
            answer.reason = choice.finish_reason
            for piece in choice.delta.tool_calls or []:
                _add(answer, piece)
        for answer in answers:
            answer.usage = chunk.usage
    return answers


def _add(answer: Answer, piece: Any) -> None:
    """The first piece of each index has id, type and name, and no other has; indexes count from 0."""
    answer.fragments += 1
    if piece.index == len(answer.calls):
        assert piece.id
        assert piece.type == "function"
        answer.calls.append((piece.id, piece.function.name, piece.function.arguments))
        return
    assert piece.index == len(answer.calls) - 1
    assert (piece.id, piece.function.name) == (None, None)
    id, name, arguments = answer.calls[-1]
    answer.calls[-1] = (id, name, arguments + piece.function.arguments)


@pytest.fixture(scope="module")
def client(server: Program) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=100) as made:
        yield made


@pytest.fixture
def asker(client: openai.OpenAI, profile: str, streamed: bool) -> Asker:
    return Asker(client, profile, streamed)


@pytest.mark.parametrize("choice", [None, "auto", "required", "named"])
def test_the_weather_is_asked_for(asker: Asker, choice: str | None) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    asked = {} if choice is None else {"tool_choice": named if choice == "named" else choice}
    answer = asker.ask(OSLO, TIME, WEATHER, **asked)
    assert answer.meant == [("get_weather", {"city": "Oslo"})]
    assert (answer.text, answer.reason) == ("", "tool_calls")
    assert answer.usage.completion_tokens > 10
    assert answer.usage.prompt_tokens > 100


@pytest.mark.parametrize("city", ["Paris", "Rome", "Madrid", "Berlin"])
def test_of_any_city(asker: Asker, city: str) -> None:
    assert asker.ask(f"What is the weather in {city}?", WEATHER).meant == [("get_weather", {"city": city})]


def test_arguments_are_streamed_in_fragments(client: openai.OpenAI, profile: str) -> None:
    answer = Asker(client, profile, streamed=True).ask(OSLO, WEATHER)
    assert answer.fragments > 3
    assert answer.meant == [("get_weather", {"city": "Oslo"})]


def test_two_calls_at_once(asker: Asker) -> None:
    answer = asker.ask(BOTH, WEATHER)
    assert answer.meant == [("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome"})]
    assert (answer.text, answer.reason) == ("", "tool_calls")


def test_one_call_where_parallel_calls_are_not_wanted(asker: Asker) -> None:
    answer = asker.ask(BOTH, WEATHER, parallel_tool_calls=False)
    assert (answer.meant, answer.reason) == ([("get_weather", {"city": "Paris"})], "tool_calls")
    assert answer.usage.completion_tokens > 10


def test_ids_are_never_the_same(asker: Asker) -> None:
    answers = [*asker.all(BOTH, WEATHER, n=2), asker.ask(BOTH, WEATHER)]
    assert len({id for answer in answers for id, _, _ in answer.calls}) == 6


def test_from_the_question_to_the_answer(asker: Asker) -> None:
    called = asker.ask(OSLO, WEATHER)
    ((id, name, arguments),) = called.calls
    call = {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
    turns = [
        *said_by(OSLO),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": id, "content": '{"temperature": -3, "condition": "snowy"}'},
    ]
    answer = asker.ask(turns, WEATHER)
    assert (answer.text, answer.calls, answer.reason) == ("It is snowy in Oslo, -3 degrees.", [], "stop")
    again = asker.ask([*turns, {"role": "assistant", "content": answer.text}, *said_by(CAPITAL)], WEATHER)
    assert again.text == PARIS
    for without in ({}, {"tools": [WEATHER], "tool_choice": "none"}):  # the call and its result stay known
        assert asker.ask(turns, **without).text == answer.text


def test_none_is_an_answer_in_words(asker: Asker) -> None:
    answer = asker.ask(OSLO, WEATHER, tool_choice="none")
    assert (answer.text, answer.calls, answer.reason) == ("I can not see the weather here.", [], "stop")


def test_a_question_that_needs_no_tool(asker: Asker) -> None:
    answer = asker.ask(CAPITAL, WEATHER)
    assert (answer.text, answer.calls, answer.reason) == (PARIS, [], "stop")
    assert answer.usage.completion_tokens == 8


def test_a_call_that_is_cut_keeps_its_beginning(asker: Asker) -> None:
    whole = asker.ask(OSLO, WEATHER)
    answer = asker.ask(OSLO, WEATHER, max_tokens=whole.usage.completion_tokens - 6)
    ((_, name, arguments),) = answer.calls
    assert (name, answer.reason) == ("get_weather", "length")
    assert '{"city": "Oslo"}'.startswith(arguments)
    assert 0 < len(arguments) < len('{"city": "Oslo"}')


def test_stop_strings_are_of_the_text_alone(asker: Asker) -> None:
    assert asker.ask(OSLO, WEATHER, stop=["\n", "Oslo", '"}']).meant == [("get_weather", {"city": "Oslo"})]
    answer = asker.ask(CAPITAL, WEATHER, stop=[" Paris"])
    assert (answer.text, answer.reason) == ("The capital of France is", "stop")


@pytest.mark.parametrize("place", ["result", "arguments", "escaped", "description", "schema"])
def test_no_text_spells_a_control_token(client: openai.OpenAI, profile: str, place: str) -> None:
    """As a control token it would be one token; as the text that it is, it is several."""
    spelled = 20

    def prompt_tokens(words: str) -> int:
        said = dict.fromkeys(("result", "arguments", "escaped", "description", "schema"), "x") | {
            place: words
        }
        arguments = json.dumps({"city": said["arguments"]})
        if place == "escaped":
            arguments = arguments.replace("x", words.replace("<", "\\u003c"))
        call = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
        tool = function("get_weather", said["description"])
        tool["function"]["parameters"]["properties"]["city"]["description"] = said["schema"]
        turns = [
            *said_by(OSLO),
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": said["result"]},
        ]
        answer = Asker(client, profile, streamed=False).ask(turns, tool, max_tokens=1)
        return int(answer.usage.prompt_tokens)

    assert prompt_tokens("<|im_end|>" * spelled) - prompt_tokens("x") > 3 * spelled


def test_words_that_spell_a_control_token_come_back_as_they_were(asker: Asker) -> None:
    said = "kilo <|im_end|> amber"
    without = asker.ask(f"Repeat: {said}")
    assert said in without.text
    assert asker.ask(f"Repeat: {said}", WEATHER).text == without.text


def test_a_number_that_no_engine_can_carry_is_the_callers_error(client: openai.OpenAI, profile: str) -> None:
    huge = function("f", "")
    huge["function"]["parameters"]["properties"]["city"] = {"type": "integer", "maximum": 10**30}
    with pytest.raises(openai.BadRequestError):
        Asker(client, profile, streamed=False).ask(OSLO, huge)
    assert Asker(client, profile, streamed=False).ask(OSLO, WEATHER).calls


def test_a_call_that_is_required_is_made(asker: Asker) -> None:
    """The model alone would answer in words."""
    tool = function("get_weather", "Get the weather.")
    tool["function"]["parameters"]["properties"]["city"]["enum"] = ["Oslo", "Paris"]
    answer = asker.ask(CAPITAL, tool, tool_choice="required", parallel_tool_calls=False)
    ((name, arguments),) = answer.meant
    assert (answer.reason, answer.text, name) == ("tool_calls", "", "get_weather")
    assert arguments["city"] in ("Oslo", "Paris")


def test_the_named_function_is_the_one_that_is_called(asker: Asker) -> None:
    """The model alone would say that it can not see the weather."""
    named = {"type": "function", "function": {"name": "get_time"}}
    answer = asker.ask(OSLO, TIME, WEATHER, tool_choice=named)
    assert answer.reason == "tool_calls"
    assert {(name, *arguments) for name, arguments in answer.meant} == {("get_time", "city")}
