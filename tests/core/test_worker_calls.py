"""The transformers engine's outputs become events where tools are on offer."""

from __future__ import annotations

import pytest

from sidecar.engines.worker_calls import CallingAnswer
from sidecar.generation import (
    Delta,
    Event,
    Finished,
    FinishReason,
    Function,
    GenerationRequest,
    Message,
    TokenLogprob,
    Tools,
)
from sidecar.toolcalls import call_id
from sidecar.worker.messages import Output, prepare

CALL = ["<tool_call>", "\n", '{"name": "f", ', '"arguments": ', '{"a"', ": 1}", "}\n", "</tool_call>"]


def request(*, n: int = 1, stop: tuple[str, ...] = (), parallel: bool = True) -> GenerationRequest:
    tools = Tools((Function("f"), Function("g")), parallel=parallel)
    return GenerationRequest("r", (Message("user", "hi"),), n=n, stop=stop, tools=tools)


def score(text: str) -> TokenLogprob:
    return TokenLogprob(text, text.encode(), -1.0)


def run(
    asked: GenerationRequest, pieces: list[str], finish: FinishReason | None = "stop", choice: int = 0
) -> tuple[list[Event], CallingAnswer]:
    """Each piece is a token; the last output has no text, as that of an end token."""
    answer = CallingAnswer(asked)
    events = [event for p in pieces for event in answer.feed(Output("r", choice, p, logprobs=(score(p),)))]
    if finish is not None:
        events += answer.feed(Output("r", choice, "", finish))
    return events, answer


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def scores(events: list[Event]) -> list[str]:
    return [s.token for event in events if isinstance(event, Delta) for s in event.logprobs]


def arguments(events: list[Event]) -> dict[int, str]:
    found: dict[int, str] = {}
    for event in events:
        if isinstance(event, Delta) and event.tool is not None:
            found[event.tool.index] = found.get(event.tool.index, "") + event.tool.arguments
    return found


def test_text_a_call_and_the_end() -> None:
    events, answer = run(request(), ["I", " ask", ".", "\n", *CALL, "\n", *CALL])
    assert text(events) == "I ask."
    assert arguments(events) == {0: '{"a": 1}', 1: '{"a": 1}'}
    first = next(event.tool for event in events if isinstance(event, Delta) and event.tool)
    assert (first.id, first.name) == (call_id("r 0", 0), "f")
    assert events[-1] == Finished(0, "tool_calls")
    assert answer.over


@pytest.mark.parametrize(
    ("pieces", "finish", "reason"),
    [
        (["Hi"], "stop", "stop"),
        (["Hi"], "length", "length"),
        (CALL, "stop", "tool_calls"),
        (CALL, "length", "length"),
        (CALL[:5], "stop", "stop"),
        (CALL[:6], "stop", "tool_calls"),
        (CALL[:3], "length", "length"),
    ],
)
def test_reasons(pieces: list[str], finish: FinishReason, reason: FinishReason) -> None:
    events, _ = run(request(), pieces, finish)
    assert [event for event in events if isinstance(event, Finished)] == [Finished(0, reason)]


def test_log_probabilities_go_with_the_text_and_a_call_has_none() -> None:
    events, _ = run(request(), ["I", " ask", "\n", *CALL, " then", " rest"])
    assert scores(events) == ["I", " ask", " then", " rest"]
    assert all(event.tool is None or not event.logprobs for event in events if isinstance(event, Delta))
    broken, _ = run(request(), CALL[:4], "length")
    assert scores(broken) == CALL[:4]
    assert text(broken) == "".join(CALL[:4])


def test_a_stop_string_ends_the_text_and_is_not_looked_for_in_a_call() -> None:
    asked = request(stop=("a", "\n"))
    assert prepare(asked).stop == ()
    events, answer = run(asked, [*CALL, "sky", " bl", "a", "ck"], None)
    assert (text(events), arguments(events)) == ("sky bl", {0: '{"a": 1}'})
    assert events[-1] == Finished(0, "stop")
    assert answer.over
    assert scores(events) == ["sky", " bl"]
    assert answer.feed(Output("r", 0, "more", "length")) == []


def test_what_a_stop_string_held_stands_before_the_call() -> None:
    events, _ = run(request(stop=("END",)), ["the E", "N", *CALL])
    assert text(events) == "the EN"
    kinds = [isinstance(event, Delta) and event.tool is not None for event in events]
    assert kinds == [*sorted(kinds[:-1]), False]


def test_a_second_call_ends_it_where_one_was_wanted() -> None:
    events, answer = run(request(parallel=False), [*CALL, "\n", *CALL], None)
    assert arguments(events) == {0: '{"a": 1}'}
    assert events[-1] == Finished(0, "tool_calls")
    assert answer.over


def test_each_choice_is_read_by_itself() -> None:
    answer = CallingAnswer(request(n=2, parallel=False))
    events: list[Event] = []
    for piece in [*CALL, "x"]:
        for choice in (0, 1):
            events += answer.feed(Output("r", choice, piece))
    ids = {event.tool.id for event in events if isinstance(event, Delta) and event.tool and event.tool.id}
    assert ids == {call_id("r 0", 0), call_id("r 1", 0)}
    assert answer.over
    half = CallingAnswer(request(n=2))
    half.feed(Output("r", 0, "", "stop"))
    assert not half.over


def test_without_tools_the_worker_looks_for_stop_strings() -> None:
    asked = GenerationRequest("r", "x", stop=("a",))
    assert prepare(asked).stop == ("a",)
    none = GenerationRequest("r", "x", stop=("a",), tools=Tools((Function("f"),), "none"))
    assert prepare(none).stop == ("a",)
