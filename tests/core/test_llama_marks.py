"""Marks in words that spell a control token: put there, and taken out of every answer that repeats them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.control_tokens import spelled
from sidecar.engines.llama_frames import ChatChoice
from sidecar.engines.llama_marks import INVISIBLE, Marks, Mended, mark_for, marked
from sidecar.generation import Delta, Event, Finished, Function, GenerationRequest, Message, Tools

CONTROL = ("<|im_start|>", "<|im_end|>", "</s>")
ASKED = GenerationRequest("r", (Message("user", "x"),), tools=Tools((Function("f"),)))


def pattern(control: Sequence[str]) -> re.Pattern[str]:
    found = spelled(control)
    assert found is not None
    return found


def mended(marks: Marks, pieces: Sequence[str]) -> str:
    machine = Mended(marks)
    return "".join([*map(machine.feed, pieces), machine.flush()])


def cut(text: str, at: Sequence[int]) -> list[str]:
    places = [0, *sorted(place % (len(text) + 1) for place in at), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


@given(
    st.lists(st.text("<|ab>", min_size=2, max_size=5), min_size=1, max_size=6),
    st.text("<|ab>" + INVISIBLE[:2], max_size=40),
    st.lists(st.integers(0, 100), max_size=8),
)
def test_what_is_repeated_is_what_was_written(names: list[str], text: str, at: list[int]) -> None:
    control = tuple(names)
    marks = mark_for([text], pattern(control), control)
    sent = marked(text, pattern(control), marks.mark)
    assert mended(marks, cut(sent, at)) == text
    assert not marks.control or not pattern(control).search(sent)


@given(st.text("<|im_end>\u200b", max_size=60), st.lists(st.integers(0, 100), max_size=8))
def test_how_an_answer_is_cut_makes_no_difference(text: str, at: list[int]) -> None:
    marks = Marks(CONTROL)
    assert mended(marks, cut(text, at)) == mended(marks, [text])


def test_a_mark_that_breaks_nothing_is_the_models_own() -> None:
    for text in ("a\u200bb", "<\u200bb", "<\u200b|im_en", "\u200b|im_end|>", "<\u200b\u200b|im_end|>"):
        assert mended(Marks(CONTROL), list(text)) == text
    assert mended(Marks(), ["<\u200b|im_end|>"]) == "<\u200b|im_end|>"


def test_a_request_that_spells_nothing_has_no_marks_and_one_that_has_the_mark_gets_another() -> None:
    assert mark_for(["a <|im_end", "\u200b"], pattern(CONTROL), CONTROL) == Marks()
    text = "<|im_end|> and <\u200b|im_end|>"
    marks = mark_for([text], pattern(CONTROL), CONTROL)
    assert marks.mark not in text
    assert mended(marks, [marked(text, pattern(CONTROL), marks.mark)]) == text


def test_only_a_mark_is_waited_for() -> None:
    machine = Mended(Marks(CONTROL))
    assert [machine.feed(piece) for piece in ("a<", "\u200b", "|im_", "end|>", "b<")] == [
        "a<", "", "", "|im_end|>", "b<",
    ]  # fmt: skip


def test_marks_without_end_hold_nothing_back() -> None:
    machine = Mended(Marks(CONTROL))
    told = sum(len(machine.feed("<\u200b" + "\u200b" * 99)) for _ in range(100))
    assert told > 101 * 99


def chunk(reason: str | None = None, **delta: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}).encode()


def piece(arguments: str, **more: Any) -> dict[str, Any]:
    return {"index": 0, "function": {"name": "f", "arguments": arguments}, **more}


def told(*frames: bytes, stop: tuple[str, ...] = ()) -> tuple[str, str, Event]:
    """The text, the arguments, and the end."""
    choice = ChatChoice(0, GenerationRequest("r", ASKED.prompt, tools=ASKED.tools, stop=stop), Marks(CONTROL))
    events = [event for frame in frames for event in choice.feed(frame)]
    deltas = [event for event in events if isinstance(event, Delta)]
    arguments = "".join(event.tool.arguments for event in deltas if event.tool)
    return "".join(event.text for event in deltas), arguments, events[-1]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_text_and_arguments_of_an_answer_are_without_them(size: int) -> None:
    text, arguments = "Of <\u200b|im_end|> I ask:", '{"of": "<\u200b|im_end|>", "and": "<\u200b/s>"}'
    first = [chunk(content=text[i : i + size]) for i in range(0, len(text), size)]
    then = [
        chunk(tool_calls=[piece(arguments[i : i + size], id="c")]) for i in range(0, len(arguments), size)
    ]
    assert told(*first, *then, chunk("tool_calls")) == (
        "Of <|im_end|> I ask:", '{"of": "<|im_end|>", "and": "</s>"}', Finished(0, "tool_calls"),
    )  # fmt: skip


def test_what_a_cut_answer_held_is_told() -> None:
    assert told(chunk(content="a<\u200b|im"), chunk("length")) == ("a<\u200b|im", "", Finished(0, "length"))
    frames = (chunk(tool_calls=[piece('{"a": "<\u200b|i', id="c")]), chunk("length"))
    assert told(*frames) == ("", '{"a": "<\u200b|i', Finished(0, "length"))


def test_a_stop_string_is_found_as_the_client_spells_it() -> None:
    frames = (chunk(content="a <\u200b|im_"), chunk(content="end|> b"), chunk("stop"))
    assert told(*frames, stop=("<|im_end|>",)) == ("a ", "", Finished(0, "stop"))
