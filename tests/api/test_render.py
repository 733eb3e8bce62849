"""Numbers that JSON does not know."""

from __future__ import annotations

import json
import math

from sidecar.api.answers import Choice
from sidecar.api.render import ChatRender, Options, TextRender
from sidecar.generation import Delta, TokenLogprob, Usage

NEVER = TokenLogprob("a", b"a", -math.inf, (("b", b"b", -math.inf),))
OPTIONS = Options(with_logprobs=True)


def test_an_impossible_token_has_a_finite_logprob() -> None:
    chat = ChatRender("id", "m", OPTIONS).whole([Choice("a", [NEVER])], Usage(1, 1))
    text = TextRender("id", "m", OPTIONS).whole([Choice("a", [NEVER])], Usage(1, 1))
    assert json.dumps(chat, allow_nan=False).count("-9999.0") == 2
    assert json.dumps(text, allow_nan=False).count("-9999.0") == 2


def test_offsets_go_on_through_a_stream() -> None:
    render = TextRender("id", "m", OPTIONS)
    token = TokenLogprob("abc", b"abc", -1.0)
    offsets = [
        render.delta(Delta(choice, "abc", (token,)))["logprobs"]["text_offset"] for choice in (0, 0, 1)
    ]
    assert offsets == [[0], [3], [0]]
