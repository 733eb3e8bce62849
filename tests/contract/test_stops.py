"""Stop strings: the text before them is exact, however tokens and chunks are cut."""

from __future__ import annotations

import pytest

from tests.contract.asking import CAPITAL, PARIS, STORY, Door


@pytest.mark.parametrize(
    ("stop", "text", "tokens"),
    [
        (" France", " The capital of", 4),  # a whole token
        (["ance is Pa"], " The capital of Fr", 6),  # from the middle of one token into the middle of another
        (["Paris", "of"], " The capital ", 3),  # of several, the one that comes first
        (["Paris", "France is"], " The capital of ", 5),
        ([" The"], "", 1),  # at the very start
        (["T"], " ", 1),
        (["."], " The capital of France is Paris", 7),
        (["Rome", "Paris, "], f" {PARIS}", 8),  # one that never comes whole: what was held back is text
    ],
    ids=str,
)
def test_the_text_before_a_stop_string_is_exact(
    door: Door, streamed: bool, stop: str | list[str], text: str, tokens: int
) -> None:
    answer = door.greedy(streamed, prompt=CAPITAL, stop=stop)
    assert (answer.text, answer.reason, answer.done) == (text, "stop", True)
    assert answer.counts[1] == tokens


def test_a_stop_string_in_a_chat(door: Door, streamed: bool) -> None:
    messages = [{"role": "user", "content": CAPITAL}]
    assert door.greedy(streamed, messages=messages, stop=["is Par"]).text == "The capital of France "


def test_a_stop_string_of_the_prompt_stops_nothing(door: Door, streamed: bool) -> None:
    answer = door.greedy(streamed, prompt=CAPITAL, stop=["What is"])
    assert answer.text == f" {PARIS}"


def test_a_stop_string_ends_each_choice_by_itself(door: Door, streamed: bool) -> None:
    answer = door.ask(streamed, prompt=STORY, n=3, seed=3, stop=["a"], temperature=1.5, max_tokens=60)
    whole = door.ask(prompt=STORY, n=3, seed=3, temperature=1.5, max_tokens=60)
    assert answer.texts == [text.split("a")[0] for text in whole.texts]


def test_who_was_stopped_leaves_the_place_at_once(door: Door) -> None:
    """1900 tokens are not computed for two."""
    answer = door.greedy(prompt=CAPITAL, stop=["capital"], max_tokens=1900, logit_bias={"0": -100, "2": -100})
    assert answer.counts[1] == 2
