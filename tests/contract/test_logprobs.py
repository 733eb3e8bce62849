"""Log probabilities: one for each token of the text, the model's own, whatever shaped the choice.

What the engines do not share: a character of several tokens has an entry for each of them with
transformers, and one with llama-server, that of its last token.
"""

from __future__ import annotations

import pytest

from tests.contract.asking import CAPITAL, PARIS, Door, ids, said_by


def test_one_for_each_token_of_the_text_and_none_for_its_end(door: Door, streamed: bool) -> None:
    raw = door.greedy(streamed, prompt=CAPITAL, logprobs=2)
    assert [score.token for score in raw.scores] == [
        " The",
        " capital",
        " of",
        " France",
        " is",
        " Paris",
        ".",
    ]
    assert len(raw.scores) == raw.counts[1] - 1
    chat = door.greedy(streamed, messages=said_by(CAPITAL), logprobs=True, top_logprobs=3)
    assert b"".join(score.raw for score in chat.scores).decode() == PARIS
    assert all(score.logprob <= 0 for score in [*raw.scores, *chat.scores])


def test_without_an_end_there_are_as_many_as_tokens(door: Door, streamed: bool) -> None:
    cut = door.greedy(streamed, prompt=CAPITAL, logprobs=0, max_tokens=4)
    assert [score.token for score in cut.scores] == [" The", " capital", " of", " France"]


@pytest.mark.parametrize("alternatives", [0, 1, 5])
def test_as_many_alternatives_as_asked_the_best_first(door: Door, streamed: bool, alternatives: int) -> None:
    answer = door.greedy(
        streamed, messages=said_by(CAPITAL), logprobs=True, top_logprobs=alternatives, max_tokens=3
    )
    for score in answer.scores:
        assert len(score.top) == alternatives
        assert list(score.top.values()) == sorted(score.top.values(), reverse=True)
        if alternatives:
            assert next(iter(score.top.items())) == (score.token, score.logprob)


@pytest.mark.parametrize(
    ("stop", "tokens"),
    [
        ("is Par", [" The", " capital", " of", " France", " is"]),
        (" France", [" The", " capital", " of"]),
        (" The", []),
        ("ance", [" The", " capital", " of", " France"]),
    ],
)
def test_none_for_a_stop_string(door: Door, streamed: bool, stop: str, tokens: list[str]) -> None:
    answer = door.greedy(streamed, prompt=CAPITAL, stop=stop, logprobs=1)
    assert [score.token for score in answer.scores] == tokens


def test_they_come_with_their_text(door: Door) -> None:
    """No chunk shows the log probabilities of text that is wholly held back."""
    stream = door.events(prompt=CAPITAL, stop=["capital of Spain"], logprobs=0, temperature=0)
    for event in stream:
        for choice in (event or {}).get("choices", []):
            tokens = (choice["logprobs"] or {"tokens": []})["tokens"]
            assert choice["text"] or choice["finish_reason"] or not tokens


def test_they_are_the_models_own(door: Door) -> None:
    """Neither a bias nor a penalty nor the temperature changes them."""
    plain = door.greedy(prompt=CAPITAL, logprobs=1, max_tokens=1).scores[0]
    (hash_sign,) = ids("#")
    forced = door.ask(
        prompt=CAPITAL, logprobs=1, max_tokens=1, temperature=1.5, repetition_penalty=1.5,
        logit_bias={str(hash_sign): 100},
    ).scores[0]  # fmt: skip
    assert forced.token == "#"
    assert forced.logprob < -8
    assert forced.top.keys() == plain.top.keys()
    assert forced.top[" The"] == pytest.approx(plain.logprob, abs=1e-4)


def test_each_choice_has_its_own(door: Door, streamed: bool) -> None:
    answer = door.ask(streamed, prompt="Tell me", n=3, seed=2, max_tokens=4, logprobs=0)
    assert len(set(answer.texts)) > 1
    assert ["".join(score.token for score in choice.scores) for choice in answer.choices] == answer.texts


def test_the_bytes_of_a_character_of_several_tokens(door: Door, profile: str) -> None:
    answer = door.greedy(messages=said_by("What is the Japanese word for water?"), logprobs=True)
    assert answer.text.endswith("is 水.")
    assert b"".join(score.raw for score in answer.scores).decode() == answer.text
    of_the_character = [score.raw for score in answer.scores if not score.raw.isascii()]
    water = "水".encode()
    assert of_the_character == ([water] if profile == "embedded-gguf" else [bytes([byte]) for byte in water])
