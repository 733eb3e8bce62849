"""What is refused, in the same words by both engines, and what is cut to what there is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.asking import CAPITAL, ENDLESS, LONG, PARIS, Door, Refused, said_by

CHAT = {"messages": said_by("hi")}
CONTEXT = 2048


def refused(door: Door, streamed: bool, body: dict[str, Any]) -> tuple[int, str, str]:
    """Status, code, message; the engine goes on as if nothing had been."""
    engine = door.server.child().pid
    with pytest.raises(Refused) as found:
        door.ask(streamed, **body)
    assert set(found.value.error) == {"message", "type", "param", "code"}
    assert door.greedy(prompt=CAPITAL).text == f" {PARIS}"
    assert door.server.child().pid == engine
    return found.value.status, found.value.error["code"], found.value.error["message"]


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"prompt": ""}, "invalid_value", "`prompt` is empty"),
        ({"prompt": []}, "invalid_value", "`prompt` must be"),
        ({"prompt": [2048]}, "invalid_value", "Token id 2048 is outside the vocabulary (0 to 2047)."),
        ({"prompt": [-1]}, "invalid_value", "token ids"),
        ({"prompt": [2**40]}, "invalid_value", ""),
        ({"prompt": "x", "logit_bias": {"2048": 1}}, "invalid_value", "the vocabulary ends at 2047"),
        ({**CHAT, "logit_bias": {"2048": 1}}, "invalid_value", "the vocabulary ends at 2047"),
        ({"prompt": "x", "repetition_penalty": 0}, "invalid_value", "repetition_penalty"),
        ({"prompt": "x", "n": 5}, "invalid_value", "`n`"),
        ({"prompt": "x", "max_tokens": 0}, "invalid_value", "max_tokens"),
        (
            {"prompt": [5] * CONTEXT},
            "context_length_exceeded",
            "maximum context length is 2048 tokens. However, you requested 2049 tokens "
            "(2048 in the prompt, 1 in the completion)",
        ),
        (
            {"prompt": [5] * 2000, "max_tokens": 100},
            "context_length_exceeded",
            "you requested 2100 tokens (2000 in the prompt, 100 in the completion)",
        ),
        ({"prompt": "x", "max_tokens": CONTEXT}, "context_length_exceeded", "2048 in the completion"),
        ({"prompt": "x " * 9000}, "context_length_exceeded", "maximum context length"),
        ({"prompt": "x" * 500_000}, "context_length_exceeded", "maximum context length"),
        ({**CHAT, "max_tokens": 2040}, "context_length_exceeded", "2040 in the completion"),
        ({"messages": said_by("hi " * 9000)}, "context_length_exceeded", "maximum context length"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else None,
)
def test_refused_before_anything_is_computed(
    door: Door, streamed: bool, body: dict[str, Any], code: str, words: str
) -> None:
    status, said, message = refused(door, streamed, body)
    assert (status, said) == (400, code)
    assert words in message


def test_a_model_that_there_is_not(door: Door, streamed: bool) -> None:
    assert refused(door, streamed, {"prompt": "x", "model": "gpt-4"})[:2] == (404, "model_not_found")


def test_a_prompt_and_its_answer_may_fill_the_context(door: Door, streamed: bool) -> None:
    """Without `max_tokens` the answer has what the prompt leaves."""
    prompt = [5] * (CONTEXT - 3)
    for body in ({}, {"max_tokens": 3}):
        filled = door.greedy(streamed, prompt=prompt, **ENDLESS, **body)
        assert (filled.counts, filled.reason) == ((CONTEXT - 3, 3), "length")


def test_a_deadline_while_it_runs(door: Door) -> None:
    assert refused(door, False, {**LONG, "timeout": 0.05})[:2] == (408, "timeout")


def test_a_deadline_in_a_stream_is_its_last_event(door: Door) -> None:
    cut = door.ask(True, **LONG, timeout=0.4)
    assert cut.error is not None
    assert cut.error["code"] == "timeout"
    assert cut.text
    assert not cut.done


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"prompt": ""}, 400, "invalid_value"),
        ({"prompt": "x", "max_lenght": 4}, 400, "invalid_value"),
        ({"prompt": "x", "max_length": CONTEXT}, 400, "context_length_exceeded"),
        ({"prompt": "Tell me a story.", "max_length": 1500, "timeout": 0.05}, 408, "timeout"),
    ],
    ids=str,
)
def test_the_native_route_refuses_in_the_same_words(
    door: Door, body: dict[str, Any], status: int, code: str
) -> None:
    got, answer = door.server.post("/generate", **body)
    assert (got, answer["error"]["code"]) == (status, code)
