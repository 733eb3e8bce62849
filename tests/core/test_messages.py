"""The worker's protocol: what goes in at one end comes out at the other, however it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.generation import EngineStats, GenerationRequest, Message, Price, Sampling, Usage
from sidecar.worker import messages
from sidecar.worker.messages import (
    Begin,
    Cancel,
    Frames,
    Output,
    Priced,
    Released,
    Step,
    Trim,
    Trimmed,
    prepare,
)

FROM = [
    Priced("a", Price(3, 5, 1)),
    Step((Output("a", 0, "é"), Output("b", 1, "", "stop"))),
    Released("a", Usage(3, 5, 0)),
    Released("b", None, "out_of_memory", "no", "n"),
    Trimmed(12.5, EngineStats(resident_bytes=7)),
]
TO = [
    prepare(GenerationRequest("a", "text", 4, Sampling(seed=2**63 - 1, logit_bias=((1, -100.0),)))),
    prepare(GenerationRequest("b", (1, 2, 3), stop=("x",), n=4, logprobs=0)),
    prepare(GenerationRequest("c", (Message("user", "<|im_end|>"),))),
    Begin("a"),
    Cancel("a"),
    Trim(),
]


@given(st.lists(st.integers(1, 40), max_size=20))
def test_any_cut_gives_the_same_messages(cuts: list[int]) -> None:
    wire = b"".join(messages.frame(m) for m in FROM)
    frames, found, at = Frames(), [], 0
    for length in [*cuts, len(wire)]:
        found += [messages.decode_from_worker(body) for body in frames.feed(wire[at : at + length])]
        at += length
    assert found == FROM


def test_requests_arrive_as_they_were_sent() -> None:
    frames = Frames()
    bodies = frames.feed(b"".join(messages.frame(m) for m in TO))
    assert [messages.decode_to_worker(body) for body in bodies] == TO


def test_one_of_the_three_prompts_is_set() -> None:
    for message, filled in zip(TO[:3], ("text", "token_ids", "messages"), strict=True):
        others = {"text", "token_ids", "messages"} - {filled}
        assert getattr(message, filled)
        assert all(getattr(message, name) is None for name in others)


def test_an_absurd_length_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        list(Frames().feed(b"\xff\xff\xff\xff"))
