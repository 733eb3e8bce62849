"""Stop strings, however the text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.stops import StopMatcher


def run(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    shown = "".join(matcher.feed(piece) for piece in pieces)
    return shown + ("" if matcher.hit else matcher.flush()), matcher.hit


@pytest.mark.parametrize(
    ("pieces", "stops", "shown", "hit"),
    [
        (["Hello wor", "ld"], ["wor"], "Hello ", True),
        (["Hello w", "o", "rld"], ["wor"], "Hello ", True),
        (["Hello w", "o"], ["wor"], "Hello wo", False),
        (["aab"], ["ab"], "a", True),
        (["a", "a", "b"], ["ab"], "a", True),
        (["x\n", "\ny"], ["\n\n"], "x", True),
        (["one two"], ["two", "one"], "", True),
        (["ab", "cd"], ["abcd", "bc"], "a", True),
        (["text"], [], "text", False),
        (["日", "本"], ["本"], "日", True),
    ],
)
def test_table(pieces: list[str], stops: list[str], shown: str, hit: bool) -> None:
    assert run(pieces, stops) == (shown, hit)


def test_after_a_hit_nothing_is_shown() -> None:
    matcher = StopMatcher(["stop"])
    assert matcher.feed("a stop b") == "a "
    assert (matcher.feed("more"), matcher.flush()) == ("", "")


def test_text_that_can_not_be_a_stop_is_shown_at_once() -> None:
    matcher = StopMatcher(["</end>"])
    assert matcher.feed("abc<") == "abc"
    assert matcher.feed("b") == "<b"


alphabet = st.text(alphabet="ab\n", max_size=30)


@given(st.lists(alphabet, max_size=8), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=4))
def test_the_cut_does_not_matter(pieces: list[str], stops: list[str]) -> None:
    text = "".join(pieces)
    ends = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    expected = (text[: min(ends)[1]], True) if ends else (text, False)
    assert run([text], stops) == run(pieces, stops) == run(list(text), stops) == expected


@given(alphabet, st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=4))
def test_several_stops_never_leak(text: str, stops: list[str]) -> None:
    shown, hit = run(list(text), stops)
    assert text.startswith(shown)
    assert not any(stop in shown for stop in stops)
    assert hit == any(stop in text for stop in stops)
