"""What is text and what is a call, however the text is cut."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.generation import ToolDelta
from sidecar.toolcalls import CLOSE, OPEN, CallReader, call_id

NAMES = ("f", "get_weather")


@dataclass
class Read:
    """All that was told, put together as a client does."""

    text: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    whole: int = 0
    over: bool = False


def read(pieces: list[str], *, parallel: bool = True) -> Read:
    reader, found = CallReader("a", NAMES, parallel=parallel), Read()
    for told in [*(piece for text in pieces for piece in reader.feed(text)), *reader.flush()]:
        if isinstance(told, str):
            found.text += told
            continue
        if told.index == len(found.calls):
            assert told.id is not None
            assert told.name is not None
            found.ids.append(told.id)
            found.calls.append((told.name, ""))
        else:
            assert (told.id, told.name) == (None, None)
        name, so_far = found.calls[told.index]
        found.calls[told.index] = (name, so_far + told.arguments)
    found.whole, found.over = reader.whole, reader.over
    return found


def cuts(text: str) -> list[list[str]]:
    """Whole, by characters, in two at every place."""
    return [[text], list(text), *([text[:at], text[at:]] for at in range(1, len(text)))]


def call(name: str = "f", arguments: str = '{"a": 1}') -> str:
    return f'{OPEN}\n{{"name": "{name}", "arguments": {arguments}}}\n{CLOSE}'


CALLS = {
    "one": (call(), "", [("f", '{"a": 1}')]),
    "text before": (f"I ask.\n\n{call()}", "I ask.", [("f", '{"a": 1}')]),
    "text behind": (f"{call()}\nDone. ", "\nDone. ", [("f", '{"a": 1}')]),
    "white space around": (f" \n{call()}\n ", "", [("f", '{"a": 1}')]),
    "two": (f"{call()}\n{call('get_weather', '{}')}", "", [("f", '{"a": 1}'), ("get_weather", "{}")]),
    "two without a break": (call() * 2, "", [("f", '{"a": 1}')] * 2),
    "text between": (f"{call()} and {call()}", " and", [("f", '{"a": 1}')] * 2),
    "nothing between the tags and the object": (
        OPEN + '{"name":"f","arguments":{}}' + CLOSE, "", [("f", "{}")],
    ),
    "white space anywhere": (
        f'{OPEN} \n{{ "name" :\t"f" ,\n "arguments" : {{ "a" : [ ] }} }} \n {CLOSE}', "",
        [("f", '{ "a" : [ ] }')],
    ),
    "arguments first": (
        f'{OPEN}{{"arguments": {{"a": "x"}} , "name": "f"}}{CLOSE}', "", [("f", '{"a": "x"}')],
    ),
    "no arguments": (f'{OPEN}{{"name": "f"}}{CLOSE}', "", [("f", "{}")]),
    "a name with escapes": (f'{OPEN}{{"name": "\\u0066", "arguments": {{}}}}{CLOSE}', "", [("f", "{}")]),
    "brackets, quotes and tags in strings": (
        call(arguments='{"a": "}]{[ \\" \\\\", "</tool_call>": "<tool_call>"}'), "",
        [("f", '{"a": "}]{[ \\" \\\\", "</tool_call>": "<tool_call>"}')],
    ),
    "any script": (call(arguments='{"ort": "Zürich 東京 🚀"}'), "", [("f", '{"ort": "Zürich 東京 🚀"}')]),
    "nested": (call(arguments='{"a": {"b": [{"c": {}}]}}'), "", [("f", '{"a": {"b": [{"c": {}}]}}')]),
    "one brace forgotten": (f'{OPEN}{{"name": "f", "arguments": {{}}\n{CLOSE}', "", [("f", "{}")]),
    "one brace too many": (f'{OPEN}{{"name": "f", "arguments": {{}}}}}}\n{CLOSE}', "", [("f", "{}")]),
    "no end tag": (OPEN + '{"name": "f", "arguments": {}}', "", [("f", "{}")]),
    "no end tag, then a call": (
        OPEN + '{"name": "f", "arguments": {}}\n' + call(), "", [("f", "{}"), ("f", '{"a": 1}')],
    ),
    "no end tag, then text": (OPEN + '{"name": "f", "arguments": {}}\n<b>', "\n<b>", [("f", "{}")]),
    "a tag that begins twice": (f"<<tool{call()}", "<<tool", [("f", '{"a": 1}')]),
    "a broken call before a whole one": (f"{OPEN}{{nothing{call()}", f"{OPEN}{{nothing", [("f", '{"a": 1}')]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said", "calls"), CALLS.values(), ids=CALLS.keys())
def test_calls(text: str, said: str, calls: list[tuple[str, str]]) -> None:
    for pieces in cuts(text):
        found = read(pieces)
        assert (found.text, found.calls, found.whole) == (said, calls, len(calls))
        assert not found.over


TEXTS = {
    "nothing": "",
    "plain": "The sky is blue. ",
    "a tag alone": OPEN,
    "an end tag alone": CLOSE,
    "half a tag": "a <tool_ca",
    "no object": f"{OPEN}[1]{CLOSE}",
    "a string": f'{OPEN}"f"{CLOSE}',
    "words": f"{OPEN}get_weather{CLOSE}",
    "an empty object": f"{OPEN}{{}}{CLOSE}",
    "a function that is not offered": call("g"),
    "the same, arguments first": f'{OPEN}{{"arguments": {{}}, "name": "g"}}{CLOSE}',
    "a name that is no text": f'{OPEN}{{"name": 7, "arguments": {{}}}}{CLOSE}',
    "no name": f'{OPEN}{{"arguments": {{}}}}{CLOSE}',
    "a name twice": f'{OPEN}{{"name": "f", "name": "f", "arguments": {{}}}}{CLOSE}',
    "another member": f'{OPEN}{{"name": "f", "id": 7, "arguments": {{}}}}{CLOSE}',
    "arguments that are text": call(arguments='"a"'),
    "arguments that are a list": call(arguments="[1]"),
    "arguments first, and broken": f'{OPEN}{{"arguments": {{a: 1}}, "name": "f"}}{CLOSE}',
    "arguments first, and too deep": f'{OPEN}{{"arguments": {"{" * 5000}',
    "cut in the name": f'{OPEN}\n{{"name": "get_wea',
    "cut before the arguments": f'{OPEN}\n{{"name": "f", "arguments": ',
    "cut in arguments that came first": f'{OPEN}\n{{"arguments": {{"a": ',
    "brackets of two kinds": f'{OPEN}{{"name": "f"]{CLOSE}',
    "words in place of a key": f"{OPEN}{{nothing",
    "two values": f'{OPEN}{{"name": "f" "f", "arguments": {{}}}}{CLOSE}',
    "no comma": f'{OPEN}{{"name": "f" "arguments": {{}}}}{CLOSE}',
    "quotes of another kind": f"{OPEN}{{'name': 'f', 'arguments': {{}}}}{CLOSE}",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_what_is_no_call_is_text_to_the_letter(text: str) -> None:
    for pieces in cuts(text) if len(text) < 1000 else ([text], list(text)):
        found = read(pieces)
        assert (found.text, found.calls) == (text, [])
    assert read([f"So \n{text}"]).text == f"So \n{text}"
    behind = read([f"{call()}\n{text}"])
    assert (behind.text, behind.whole) == (f"\n{text}" if text else "", 1)


def test_a_call_that_is_cut_keeps_what_was_written() -> None:
    for end in range(len('{"a": {"b": "x')):
        arguments = '{"a": {"b": "x'[: end + 1]
        for pieces in cuts(f'{OPEN}\n{{"name": "f", "arguments": {arguments}'):
            found = read(pieces)
            assert (found.text, found.calls, found.whole) == ("", [("f", arguments)], 0)


def test_arguments_are_told_as_they_come() -> None:
    reader = CallReader("a", NAMES)
    assert reader.feed(f'{OPEN}\n{{"name": "f", "arguments": ') == []
    assert reader.feed('{"a"') == [ToolDelta(0, call_id("a", 0), "f", '{"a"')]
    assert reader.feed(": 1") == [ToolDelta(0, arguments=": 1")]
    assert reader.feed(f"}}}}\n{CLOSE}") == [ToolDelta(0, arguments="}")]
    assert reader.flush() == []


def test_text_that_can_not_begin_a_call_is_told_at_once() -> None:
    reader = CallReader("a", NAMES)
    assert reader.feed("abc <") == ["abc"]
    assert reader.feed("b") == [" <b"]


def test_ids_are_of_the_answer_and_the_index() -> None:
    ids = read([call() * 3]).ids
    assert ids == [call_id("a", index) for index in range(3)] == read(list(call() * 3)).ids
    assert len({*ids, *(call_id("b", index) for index in range(3))}) == 6
    assert all(len(id) == 29 and id.startswith("call_") and id.isascii() for id in ids)


@pytest.mark.parametrize(
    ("behind", "over"),
    [
        ("", False),
        ("\n ", False),
        ("\n" + call(), True),
        (" and then", True),
        ("\n<tool", False),
        ("<b", True),
    ],
)
def test_without_parallel_calls_nothing_is_told_behind_the_first(behind: str, over: bool) -> None:
    for pieces in cuts("So " + call() + behind):
        found = read(pieces, parallel=False)
        assert (found.text, found.calls) == ("So", [("f", '{"a": 1}')])
        assert found.over == over


keys = st.text(max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12) | st.sampled_from([OPEN, CLOSE, '"}', "\\", "{[", "<|im_end|>"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
objects = st.dictionaries(keys, values, max_size=4)
space = st.text(" \n\t", max_size=3)
parts = st.sampled_from([
    OPEN, CLOSE, "<tool", "{", "}", "[", "]", '"', "\\", ":", ",", " ", "\n", '"name"', '"arguments"', '"f"',
    "x", call(),
])  # fmt: skip


@st.composite
def written(draw: st.DrawFn) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    """Calls as a model may write them, and what they mean."""
    text, meant = draw(st.sampled_from(["", "I ask.\n", "日本 <b>"])), []
    for name, arguments in draw(st.lists(st.tuples(st.sampled_from(NAMES), objects), max_size=3)):
        body = json.dumps(
            arguments, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))
        )
        members = [f'"name":{draw(space)}"{name}"', f'"arguments":{draw(space)}{body}']
        inside = f"{draw(space)},{draw(space)}".join(draw(st.permutations(members)))
        text += f"{OPEN}{draw(space)}{{{draw(space)}{inside}{draw(space)}}}{draw(space)}{CLOSE}{draw(space)}"
        meant.append((name, arguments))
    return text, meant


@given(written(), st.data())
def test_calls_come_back_as_they_were_meant(
    case: tuple[str, list[tuple[str, dict[str, Any]]]], data: st.DataObject
) -> None:
    text, meant = case
    found = read(cut(text, data))
    assert [(name, json.loads(arguments)) for name, arguments in found.calls] == meant
    assert found.whole == len(meant)
    assert found.text.strip() == text.partition(OPEN)[0].strip()


@given(st.lists(parts, max_size=25).map("".join), st.booleans(), st.data())
def test_the_cut_does_not_matter(text: str, parallel: bool, data: st.DataObject) -> None:
    assert (
        read([text], parallel=parallel)
        == read(list(text), parallel=parallel)
        == read(cut(text, data), parallel=parallel)
    )


@given(st.lists(parts.filter(lambda part: part != call()), max_size=25).map("".join))
def test_without_a_call_nothing_is_lost(text: str) -> None:
    found = read(list(text))
    assert found.calls or found.text == text


def cut(text: str, data: st.DataObject) -> list[str]:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]
