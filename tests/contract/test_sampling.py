"""How a token is chosen: seeds, choices, biases, penalties, and what their ends do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.asking import CAPITAL, PARIS, Door, ids

OPEN = "Tell me"  # many ways to go on
SOME = {str(token): 100 for token in range(300, 400)}  # nothing else can come


def sampled(door: Door, streamed: bool = False, **body: Any) -> list[str]:
    return door.ask(streamed, **{"prompt": OPEN, "max_tokens": 12, **body}).texts


def test_the_same_seed_is_the_same_text(door: Door) -> None:
    alone = [sampled(door, seed=seed) for seed in range(4)]
    assert len({text for (text,) in alone}) == 4
    with ThreadPoolExecutor(24) as pool:
        crowd = list(pool.map(lambda seed: sampled(door, seed=seed), [*range(4)] * 6))
    assert crowd == alone * 6


def test_without_a_seed_every_answer_is_another(door: Door) -> None:
    assert len({sampled(door)[0] for _ in range(4)}) > 1


def test_the_choices_of_a_seed_differ_and_come_again(door: Door) -> None:
    four = sampled(door, n=4, seed=11)
    assert len(set(four)) == 4
    assert sampled(door, n=4, seed=11) == four
    assert sampled(door, True, n=4, seed=11) == four


def test_all_choices_count_and_the_prompt_once(door: Door, streamed: bool) -> None:
    answer = door.greedy(streamed, prompt=CAPITAL, n=3)
    assert answer.texts == [f" {PARIS}"] * 3
    assert [choice.reason for choice in answer.choices] == ["stop"] * 3
    assert answer.counts == (len(ids(CAPITAL)), 3 * 8)


@pytest.mark.parametrize("seed", [0, -1, 2**31, 2**32, 2**63 - 1, -(2**63)])
def test_every_seed_of_64_bits(door: Door, seed: int) -> None:
    assert sampled(door, seed=seed) == sampled(door, seed=seed)


def test_temperature_0_is_greedy_whatever_the_seed(door: Door) -> None:
    assert {sampled(door, temperature=0, seed=seed)[0] for seed in range(3)} == {
        sampled(door, temperature=0)[0]
    }


@pytest.mark.parametrize("one_left", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"top_p": 0}], ids=str)
def test_with_one_token_left_it_is_the_best(door: Door, one_left: dict[str, float]) -> None:
    best = sampled(door, temperature=0, max_tokens=1)
    assert {sampled(door, seed=seed, max_tokens=1, **one_left)[0] for seed in range(3)} == {best[0]}


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 2.0, "frequency_penalty": 2.0, "presence_penalty": -2.0, "repetition_penalty": 1.2},
        {"top_k": 100_000},
        {"top_k": -1},
        {"repetition_penalty": 100},
        {"temperature": 1e-5},
        {"logit_bias": {str(token): 1 for token in range(1024)}},
    ],
    ids=lambda sampling: ",".join(sampling),
)
def test_the_ends_of_the_ranges(door: Door, sampling: dict[str, Any]) -> None:
    answer = door.ask(prompt=OPEN, max_tokens=8, seed=1, **sampling)
    assert answer.counts[1] <= 8


def test_a_bias_forces_and_forbids(door: Door) -> None:
    (hash_sign,) = ids("#")
    assert door.greedy(prompt=CAPITAL, max_tokens=3, logit_bias={str(hash_sign): 100}).text == "###"
    (the,) = ids(" The")
    forbidden = door.greedy(prompt=CAPITAL, max_tokens=3, logit_bias={str(the): -100})
    assert not forbidden.text.startswith(" The")
    endless = door.greedy(prompt=CAPITAL, max_tokens=20, logit_bias={"0": -100, "2": -100})
    assert (endless.reason, endless.counts[1]) == ("length", 20)


@pytest.mark.parametrize("penalty", ["frequency_penalty", "presence_penalty"])
def test_a_penalty_counts_what_was_said(door: Door, penalty: str) -> None:
    """Each token said is less likely from then on, or with a negative one likelier."""

    def different(value: float) -> int:
        answer = door.ask(
            prompt=OPEN,
            n=4,
            seed=1,
            temperature=2,
            max_tokens=24,
            logprobs=0,
            logit_bias=SOME,
            **{penalty: value},
        )
        return sum(len({score.token for score in choice.scores}) for choice in answer.choices)

    assert different(-2) < different(2)


def test_a_repetition_penalty_counts_the_prompt_too(door: Door) -> None:
    assert door.greedy(prompt="My", max_tokens=1).text == "My"
    assert door.greedy(prompt="My", max_tokens=1, repetition_penalty=100).text != "My"
