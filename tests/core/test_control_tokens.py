"""Where a text spells a control token: the same places, in a time that nobody can stretch."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.control_tokens import spelled

RESERVED = [f"<|reserved_special_token_{i}|>" for i in range(250)]


@given(st.lists(st.text("<|ab>", max_size=5), max_size=6), st.text("<|ab>", max_size=40))
def test_every_place_is_found_overlapping_ones_included(names: list[str], text: str) -> None:
    pattern = spelled(names)
    found = [match.start(1) for match in pattern.finditer(text)] if pattern else []
    assert found == [at for at in range(len(text)) if any(n and text.startswith(n, at) for n in names)]


def test_the_first_character_alone_is_taken() -> None:
    pattern = spelled(["<|im_end|>", "</s>", "</s>x", ""])
    assert pattern is not None
    assert pattern.sub(lambda match: match[1] + "_", "a<|im_end|></s>x<b") == "a<_|im_end|><_/s>x<b"
    assert spelled([]) is None
    assert spelled([""]) is None


@pytest.mark.parametrize(
    "piece", ["words ", "<", "<|re", "<|reserved_special_token_", "<|reserved_special_token_25"]
)
def test_half_tokens_cost_little(piece: str) -> None:
    pattern = spelled(RESERVED)
    assert pattern is not None
    text = piece * ((1 << 20) // len(piece))
    began = time.thread_time()
    assert not pattern.search(text)
    # 20 to 60 ms here; side by side the names took 3 s.
    assert time.thread_time() - began < 0.5


def test_it_means_what_the_names_side_by_side_mean() -> None:
    names = ["[INST]", "[/INST]", "<s>", "</s>", "<|a|>", "<|ab|>", "^", "a.c"]
    plain = re.compile(f"(?=(?:{'|'.join(map(re.escape, names))}))(.)", re.DOTALL)
    text = "".join(names) * 2 + "<|a" + "abc a.c ^^ [INST"
    pattern = spelled(names)
    assert pattern is not None
    assert [m.start() for m in pattern.finditer(text)] == [m.start() for m in plain.finditer(text)]
