"""The rows that a model is calibrated with."""

from __future__ import annotations

import importlib.resources

from hypothesis import given
from hypothesis import strategies as st

from sidecar.worker.calibration import chats, exchanges, prose

TEXT = importlib.resources.files("sidecar.worker").joinpath("calibration.txt").read_text(encoding="utf-8")


def test_the_packages_text_is_questions_with_answers() -> None:
    pairs = exchanges(TEXT)
    assert len(pairs) == TEXT.count("\n> ") + 1 >= 40
    assert all(question and answer for question, answer in pairs)
    assert not any(question.startswith(">") for question, _ in pairs)


@given(st.integers(1, 5), st.integers(0, 2**32))
def test_chats_take_turns_and_are_long_enough(count: int, seed: int) -> None:
    rows = chats(exchanges(TEXT), count, seed)
    assert rows == chats(exchanges(TEXT), count, seed)
    for row in rows:
        assert [turn["role"] for turn in row] == ["user", "assistant"] * (len(row) // 2)
        assert sum(len(turn["content"]) for turn in row) >= 3000


def test_a_short_text_still_makes_a_whole_chat() -> None:
    assert chats([("a?", "b.")], 1)[0][:2] == [
        {"role": "user", "content": "a?"},
        {"role": "assistant", "content": "b."},
    ]


@given(st.integers(0, 20_000), st.integers(0, 6))
def test_stretches_of_prose_do_not_overlap(length: int, count: int) -> None:
    text = "".join(chr(0x4E00 + i) for i in range(length))
    stretches = prose(text, count)
    assert len(stretches) <= count
    assert "".join(stretches) == text[: sum(map(len, stretches))]
