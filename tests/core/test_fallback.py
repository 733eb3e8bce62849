"""Who may answer in our place, when, and how often; what is sent, and how it is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.engines.hosted_bodies import hosted_post
from sidecar.engines.hosted_frames import TextChoice
from sidecar.errors import ConfigError, EngineFault
from sidecar.fallback import HOUR_S, LONGEST_REST_S, Allowance, Provider, Rests, first_token_by, rest_s
from sidecar.generation import Delta, Finished, Function, GenerationRequest, Image, Message, Sampling, Tools
from sidecar.providers import providers
from sidecar.settings import Settings, load

TOGETHER = Provider("together", "https://together.test/v1", "meta/llama", "sk-canary", more_samplers=True)
OPENAI = Provider("openai", "https://openai.test/v1", "gpt-test", "sk-canary")
TEXT = GenerationRequest("r", "Once", 5)
CHAT = replace(TEXT, prompt=(Message("user", "hi"),))
TOGETHER_SET = {"FALLBACK": "1", "TOGETHER_API_KEY": "sk-canary", "TOGETHER_MODEL": "meta/llama"}


@given(st.integers(1, 5), st.lists(st.floats(0, 3 * HOUR_S), max_size=60))
def test_no_hour_holds_more_than_its_allowance(per_hour: int, arrivals: list[float]) -> None:
    allowance = Allowance(per_hour)
    taken = [at for at in sorted(arrivals) if allowance.take(at)]
    for at in taken:
        assert sum(at <= other < at + HOUR_S for other in taken) <= per_hour
    assert len(taken) >= min(per_hour, len(arrivals))


@given(st.floats(0, 1e6), st.floats(0, 300), st.integers(1, 2))
def test_nobody_gets_more_than_a_fair_share_of_what_is_left(now: float, left_s: float, left: int) -> None:
    share = first_token_by(now, now + left_s, left) - now
    assert share == pytest.approx(left_s / left, abs=1e-6)


def test_of_a_time_that_is_over_nothing_is_left() -> None:
    assert first_token_by(10.0, 9.0, 1) == 10.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, 0), ("7", 7), ("0", 0), ("soon", 0), ("-1", 0), ("1.5", 0), ("9" * 40, LONGEST_REST_S), ("²", 0)],
)
def test_a_rest_is_what_was_asked_for_within_reason(header: str | None, seconds: float) -> None:
    assert rest_s(header) == seconds


def test_whoever_rests_is_passed_over_until_then() -> None:
    rests = Rests()
    rests.ask(TOGETHER, 100.0, 7.0)
    assert rests.willing([TOGETHER, OPENAI], 106.9) == [OPENAI]
    assert rests.willing([TOGETHER, OPENAI], 107.0) == [TOGETHER, OPENAI]


def test_a_key_is_in_no_repr() -> None:
    assert "canary" not in repr(TOGETHER)


def test_off_by_default_whatever_else_is_set() -> None:
    others = {"OPENAI_API_KEY": "sk-canary", "OPENAI_BASE_URL": "http://litellm:4000", "OPENAI_MODEL": "? ?"}
    assert providers(load([], others)) == ()
    assert not Settings().fallback


def test_together_goes_before_openai() -> None:
    both = TOGETHER_SET | {"OPENAI_API_KEY": "sk-2", "OPENAI_MODEL": "gpt-test", "OPENAI_BASE_URL": ""}
    first, second = providers(load([], both))
    assert (first.name, first.base_url, first.model) == (
        "together",
        "https://api.together.ai/v1",
        "meta/llama",
    )
    assert (second.name, second.base_url, second.model) == ("openai", "https://api.openai.com/v1", "gpt-test")
    assert [one.name for one in providers(load([], TOGETHER_SET))] == ["together"]


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"FALLBACK": "1"}, "TOGETHER_API_KEY"),
        (TOGETHER_SET | {"TOGETHER_MODEL": ""}, "TOGETHER_MODEL"),
        (TOGETHER_SET | {"TOGETHER_MODEL": "a model"}, "TOGETHER_MODEL='a model'"),
        (TOGETHER_SET | {"TOGETHER_API_KEY": "sk canary"}, "TOGETHER_API_KEY=(not shown)"),
        (TOGETHER_SET | {"TOGETHER_BASE_URL": "http://together.test/v1"}, "TOGETHER_BASE_URL"),
        (TOGETHER_SET | {"TOGETHER_BASE_URL": "https://user@together.test/v1"}, "TOGETHER_BASE_URL"),
        (TOGETHER_SET | {"TOGETHER_BASE_URL": "https://together.test/v1?a=b"}, "TOGETHER_BASE_URL"),
        (TOGETHER_SET | {"TOGETHER_BASE_URL": "https://together.test:65536/v1"}, "TOGETHER_BASE_URL"),
        (TOGETHER_SET | {"TOGETHER_BASE_URL": "https://together.test:1:2/v1"}, "TOGETHER_BASE_URL"),
        (TOGETHER_SET | {"TOGETHER_BASE_URL": "http://localhost:8000/v1"}, "this server itself"),
        (
            TOGETHER_SET | {"TOGETHER_BASE_URL": "http://localhost:900/v1", "PORT": "900"},
            "this server itself",
        ),
    ],
)
def test_what_can_not_be_used_is_named(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        providers(load([], environ))
    assert named in refused.value.message
    assert "canary" not in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://[::1]:9/v1/", "https://h.test:8443/openai/v1"])
def test_addresses_that_can_be_used(url: str) -> None:
    (found,) = providers(load([], TOGETHER_SET | {"TOGETHER_BASE_URL": url}))
    assert found.base_url == url.rstrip("/")


@pytest.mark.parametrize(
    ("provider", "sampling", "said"),
    [
        (TOGETHER, Sampling(), {"temperature": 1.0, "top_p": 1.0}),
        (OPENAI, Sampling(), {}),
        (OPENAI, Sampling(temperature=0.0, seed=7), {"temperature": 0.0, "seed": 7}),
        (
            TOGETHER,
            Sampling(top_k=40, min_p=0.1),
            {"temperature": 1.0, "top_p": 1.0, "top_k": 40, "min_p": 0.1},
        ),
        (OPENAI, Sampling(presence_penalty=0.5), {"presence_penalty": 0.5}),
    ],
)
def test_the_sampling_is_said_as_far_as_it_is_not_the_providers_own(
    provider: Provider, sampling: Sampling, said: dict[str, Any]
) -> None:
    _, body = hosted_post(replace(TEXT, sampling=sampling), provider, 9)
    names = [name for name in body if hasattr(Sampling(), name)]
    assert {name: body[name] for name in names} == said


@pytest.mark.parametrize(
    ("request_", "provider", "route", "limit"),
    [
        (TEXT, TOGETHER, "/completions", "max_tokens"),
        (TEXT, OPENAI, "/completions", "max_tokens"),
        (CHAT, TOGETHER, "/chat/completions", "max_tokens"),
        (CHAT, OPENAI, "/chat/completions", "max_completion_tokens"),
    ],
)
def test_the_length_is_bounded_in_the_providers_words(
    request_: GenerationRequest, provider: Provider, route: str, limit: str
) -> None:
    path, body = hosted_post(request_, provider, 9)
    assert (path, body["model"], body["stream"], body[limit]) == (route, provider.model, True, 5)
    _, body = hosted_post(replace(request_, max_tokens=None), provider, 9)
    assert body[limit] == 9


def test_tools_and_pictures_go_along() -> None:
    picture = Message("user", "What is it?", images=(Image(b"png", "image/png"),))
    tools = Tools((Function("look"),), "required", parallel=False)
    _, body = hosted_post(replace(CHAT, prompt=(picture,), tools=tools), OPENAI, 9)
    assert body["messages"][0]["content"][0]["image_url"]["url"] == "data:image/png;base64,cG5n"
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
    assert body["tools"][0]["function"]["name"] == "look"


def test_a_completion_is_read_frame_by_frame() -> None:
    choice = TextChoice(0, replace(TEXT, stop=("STOP",)))
    assert choice.feed(b'{"choices":[{"text":"a ST","finish_reason":null}],"usage":null}') == [Delta(0, "a ")]
    assert choice.feed(b'{"choices":[]}') == []
    assert choice.feed(b'{"choices":[{"text":"OP b"}]}') == [Finished(0, "stop")]
    assert choice.over


def test_a_completion_ends_with_what_was_held_back() -> None:
    choice = TextChoice(0, replace(TEXT, stop=("STOP",)))
    assert choice.feed(b'{"choices":[{"text":"a ST","finish_reason":"length"}]}') == [
        Delta(0, "a ST"),
        Finished(0, "length"),
    ]
    assert (choice.complete, choice.over) == (True, False)
    assert choice.feed(b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}') == []
    assert (choice.over, choice.prompt_tokens, choice.completion_tokens) == (True, 1, 2)


@pytest.mark.parametrize("frame", [b"{", b"[]", b'{"error":{"message":"no"}}', b'{"choices":[{"text":5}]}'])
def test_a_frame_that_is_none_is_an_error(frame: bytes) -> None:
    with pytest.raises(EngineFault):
        TextChoice(0, TEXT).feed(frame)
