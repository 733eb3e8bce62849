"""The real OpenAI client is the judge."""

from __future__ import annotations

import openai
import pytest

from tests.fakes.engine import ANSWER
from tests.fakes.live import Live

USER = {"role": "user", "content": "hi"}


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["scripted"]
    assert client.models.retrieve("alias").id == "scripted"
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("gpt-4")
    assert missing.value.code == "model_not_found"


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="scripted", messages=[USER], n=2)
    assert [c.message.content for c in answer.choices] == [ANSWER, ANSWER]
    assert [c.index for c in answer.choices] == [0, 1]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (1, 12)
    assert answer.usage.total_tokens == 13
    assert answer.usage.prompt_tokens_details
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


def test_chat_streamed(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="scripted", messages=[USER], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == ANSWER
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert [c.usage is not None for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1


def test_chat_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="scripted", messages=[USER], logprobs=True, top_logprobs=2, max_tokens=1
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].logprobs
    assert answer.choices[0].logprobs.content
    token = answer.choices[0].logprobs.content[0]
    assert (token.token, token.logprob, token.bytes) == ("The", -0.25, list(b"The"))
    assert len(token.top_logprobs) == 2


def test_every_field_reaches_the_engine(client: openai.OpenAI, live: Live) -> None:
    client.chat.completions.create(
        model="alias",
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "name": "ada", "content": [{"type": "text", "text": "hi"}]},
        ],
        temperature=0.3,
        top_p=0.8,
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        seed=11,
        stop="Paris",
        max_completion_tokens=9,
        logit_bias={"5": -100},
        user="me",
        metadata={"a": "b"},
        extra_body={"top_k": 40, "min_p": 0.1, "repetition_penalty": 1.1, "timeout": 20},
    )
    request = live.engine.requests[-1]
    sampling = request.sampling
    assert (request.max_tokens, request.deadline_s, request.stop) == (9, 20, ("Paris",))
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.3, 0.8, 40)
    assert (sampling.min_p, sampling.repetition_penalty) == (0.1, 1.1)
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (0.5, -0.5)
    assert (sampling.seed, sampling.logit_bias) == (11, ((5, -100.0),))
    assert not isinstance(request.prompt, str)
    roles = [(m.role, m.content, m.name) for m in request.prompt if not isinstance(m, int)]
    assert roles == [("system", "be brief", None), ("user", "hi", "ada")]


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="scripted", prompt="hi", logprobs=1, max_tokens=2)
    choice = answer.choices[0]
    assert (choice.text, choice.finish_reason) == ("The capital", "length")
    assert choice.logprobs
    assert choice.logprobs.tokens == ["The", " capital"]
    assert choice.logprobs.text_offset == [0, 3]
    assert choice.logprobs.token_logprobs == [-0.25, -0.25]


def test_several_prompts_make_several_choices(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="scripted", prompt=["[say:one]", "[say:two]"], n=2, max_tokens=4)
    assert [c.text for c in answer.choices] == ["one", "one", "two", "two"]
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    assert answer.usage
    assert answer.usage.completion_tokens == 4


@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2], [3]]])
def test_token_ids(client: openai.OpenAI, prompt: list[int]) -> None:
    answer = client.completions.create(model="scripted", prompt=prompt)
    assert answer.usage
    assert answer.usage.prompt_tokens == 3


def test_several_prompts_streamed(client: openai.OpenAI) -> None:
    stream = client.completions.create(model="scripted", prompt=["[say:one two]", "[say:three]"], stream=True)
    texts = ["", ""]
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == ["one two", "three"]


def test_errors_have_their_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="scripted", messages=[USER], temperature=3)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4", messages=[USER])
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="scripted",
            messages=[USER],
            tools=[{"type": "function", "function": {"name": "f"}}],
        )
    assert refused.value.code == "unsupported_parameter"


def test_an_error_before_the_first_token_has_its_own_status(client: openai.OpenAI) -> None:
    asked = [{"role": "user", "content": "[fail:0:out_of_memory]"}]
    with pytest.raises(openai.InternalServerError) as failed:
        client.chat.completions.create(model="scripted", messages=asked, stream=True)
    assert (failed.value.status_code, failed.value.code) == (503, "out_of_memory")
    assert failed.value.response.headers["x-should-retry"] == "false"


def test_an_error_in_mid_stream_is_raised(client: openai.OpenAI) -> None:
    asked = [{"role": "user", "content": "[fail:3:engine_crashed]"}]
    stream = client.chat.completions.create(model="scripted", messages=asked, stream=True)
    with pytest.raises(openai.APIError, match="failed by script"):
        list(stream)
