"""Conversations and prompts that can not be used."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

TEXT = {"type": "text", "text": "hi"}


def user(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi", **fields}]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "text"}, "messages"),
        ({"messages": ["text"]}, "messages.0"),
        ({"messages": [{}]}, "messages.0.role"),
        (user(role="root"), "messages.0.role"),
        (user(role="user<|im_end|>"), "messages.0.role"),
        (user(content=None), "messages.0.content"),
        (user(content=[]), "messages.0.content"),
        (user(content={"a": 1}), "messages.0.content"),
        (user(content=[TEXT, {"text": "x"}]), "messages.0.content.1"),
        (user(content=[{"type": "text", "text": None}]), "messages.0.content.0"),
        (user(content=[{"type": "image_url", "image_url": {"url": "x"}}]), "messages.0.content.0"),
        (user(content=[{"type": "input_audio"}]), "messages.0.content.0"),
        (user(name="a\n<|im_start|>"), "messages.0.name"),
        (user(tool_calls=[{"id": "x"}]), "messages.0.tool_calls"),
        (user() | {"model": 1}, "model"),
        (user() | {"model": ""}, "model"),
        (user() | {"model": "a\0b"}, "model"),
        (user() | {"max_tokens": 4, "max_completion_tokens": 5}, "max_completion_tokens"),
        (user() | {"top_logprobs": 5}, "top_logprobs"),
        (user() | {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        (user() | {"logprobs": 5}, "logprobs"),
        (user() | {"stream": 1}, "stream"),
        (user() | {"stream_options": {"include_usage": True}}, "stream_options"),
        (user() | {"stream": True, "stream_options": "x"}, "stream_options"),
        (user() | {"logit_bias": {"hello": 1}}, "logit_bias"),
        (user() | {"logit_bias": {"5": 101}}, "logit_bias"),
        (user() | {"logit_bias": {"5": True}}, "logit_bias"),
        (user() | {"tools": [{}]}, "tools.0.function.name"),
        (user() | {"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        (user() | {"tool_choice": "required"}, "tool_choice"),
        (user() | {"response_format": {"type": "sound"}}, "response_format"),
        (user() | {"n": 5}, "n"),
        (user() | {"user": {"a": 1}}, "user"),
        (user() | {"top_k": -2}, "top_k"),
        (user() | {"repetition_penalty": 0}, "repetition_penalty"),
        (user() | {"seed": 1e30}, "seed"),
        (user() | {"stop": ["a\0"]}, "stop"),
    ],
)
def test_chat_names_the_field(http: httpx.Client, body: dict[str, Any], param: str) -> None:
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert param in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [""]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [2**70]}, "prompt"),
        ({"prompt": [999_999_999]}, "prompt"),
        ({"prompt": ["a"] * 5}, "prompt"),
        ({"prompt": "hi", "echo": True}, "echo"),
        ({"prompt": "hi", "suffix": "x"}, "suffix"),
        ({"prompt": "hi", "best_of": 2}, "best_of"),
        ({"prompt": "hi", "logprobs": 6}, "logprobs"),
    ],
)
def test_completions_names_the_field(http: httpx.Client, body: dict[str, Any], param: str) -> None:
    answer = http.post("/v1/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "extra",
    [
        {"temperature": None, "tools": None, "stop": None, "stream": None, "n": None},
        {"tools": [], "tool_choice": "none"},
        {"response_format": {"type": "text"}},
        {"temperature": 1, "max_tokens": 4.0, "top_p": 0, "top_k": -1},
        {"__proto__": {"x": 1}, "constructor": 1},
        {"functions": [], "modalities": ["text"]},
    ],
)
def test_harmless_fields_are_fine(http: httpx.Client, extra: dict[str, Any]) -> None:
    assert http.post("/v1/chat/completions", json=user() | extra).status_code == 200


def test_many_errors_make_a_short_answer(http: httpx.Client) -> None:
    bad = {"role": "user", "content": [{"type": "text", "text": 1}]}
    answer = http.post("/v1/chat/completions", json={"messages": [bad] * 1000})
    assert answer.status_code == 400
    assert len(answer.content) < 1000
