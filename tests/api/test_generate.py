"""POST /generate: the first seed's route."""

from __future__ import annotations

import httpx
import pytest

from tests.fakes.engine import ANSWER
from tests.fakes.live import Live


@pytest.mark.parametrize("path", ["/generate", "/generate/"])
def test_answers_directly_with_and_without_slash(http: httpx.Client, path: str) -> None:
    answer = http.post(path, json={"prompt": "What is the capital of France?"})
    assert (answer.status_code, answer.json()) == (200, {"generated_text": ANSWER})


def test_max_length_counts_new_tokens(http: httpx.Client, live: Live) -> None:
    assert http.post("/generate", json={"prompt": "hi", "max_length": 2.0}).json() == {
        "generated_text": "The capital"
    }
    http.post("/generate", json={"prompt": "hi"})
    assert [request.max_tokens for request in live.engine.requests[-2:]] == [2, 128]


def test_fields_reach_the_engine(http: httpx.Client, live: Live) -> None:
    body = {
        "prompt": "fields",
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "stop": [" is"],
        "timeout": 5,
    }
    assert http.post("/generate", json=body).json() == {"generated_text": "The capital of France"}
    request = live.engine.requests[-1]
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (0.5, 0.9, 7)
    assert (request.stop, request.deadline_s, request.prompt) == ((" is",), 5, "fields")


def test_greedy_unless_asked_otherwise(http: httpx.Client, live: Live) -> None:
    http.post("/generate", json={"prompt": "hi", "temperature": None})
    assert live.engine.requests[-1].sampling.temperature == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"prompt": "hi"}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
    ],
)
def test_a_minute_unless_asked_otherwise(
    http: httpx.Client, live: Live, path: str, body: dict[str, object]
) -> None:
    assert http.post(path, json=body).status_code == 200
    assert live.engine.requests[-1].deadline_s == 60


def test_an_unknown_field_is_named(http: httpx.Client) -> None:
    answer = http.post("/generate", json={"prompt": "hi", "max_lenght": 4})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "max_lenght")
    assert "max_length" in error["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", ""),
        ("prompt", 1),
        ("prompt", ["a"]),
        ("max_length", 0),
        ("max_length", True),
        ("max_length", "128"),
        ("max_length", 1.5),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("top_p", 1.1),
        ("timeout", 0),
        ("timeout", 301),
        ("seed", 2**63),
        ("stop", [""]),
        ("stop", ["x"] * 17),
    ],
)
def test_a_bad_value_is_named_and_not_echoed(http: httpx.Client, field: str, value: object) -> None:
    answer = http.post("/generate", json={"prompt": "hi", field: value})
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["param"] == field
    assert error["type"] == "invalid_request_error"
    assert isinstance(error["code"], str)


@pytest.mark.parametrize(
    ("fields", "reached"),
    [
        ({"temperature": 1e-40}, (0.0, 1.0)),
        ({"temperature": 9e-6}, (0.0, 1.0)),
        ({"temperature": 1e-5}, (1e-5, 1.0)),
        ({"temperature": 1, "top_p": 1e-50}, (0.0, 1.0)),
        ({"temperature": 1, "top_p": 1e-6}, (1.0, 1e-6)),
        ({"temperature": 1, "top_p": 0}, (0.0, 1.0)),
    ],
)
def test_what_single_precision_can_not_hold_is_greedy(
    http: httpx.Client, live: Live, fields: dict[str, float], reached: tuple[float, float]
) -> None:
    assert http.post("/generate", json={"prompt": "hi", **fields}).status_code == 200
    sampling = live.engine.requests[-1].sampling
    assert (sampling.temperature, sampling.top_p) == reached


@pytest.mark.parametrize(
    ("path", "field", "value", "ends"),
    [
        ("/v1/completions", "repetition_penalty", 1e-45, ("at least 0.01", "at most 100")),
        ("/v1/completions", "repetition_penalty", 101, ("at least 0.01", "at most 100")),
        ("/v1/completions", "n", 5, ("at least 1", "at most 4")),
        ("/generate", "timeout", 0, ("more than 0", "at most 300")),
        ("/generate", "temperature", -1, ("at least 0", "at most 2")),
    ],
)
def test_a_value_outside_is_told_both_ends(
    http: httpx.Client, path: str, field: str, value: float, ends: tuple[str, str]
) -> None:
    answer = http.post(path, json={"prompt": "hi", field: value})
    assert answer.status_code == 400
    assert all(end in answer.json()["error"]["message"] for end in ends)


def test_more_than_the_context_is_refused_with_the_numbers(http: httpx.Client) -> None:
    answer = http.post("/generate", json={"prompt": "one two three", "max_length": 6142})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "context_length_exceeded")
    assert error["param"] == "max_length"
    assert "6144" in error["message"]
    assert "3 in the prompt, 6142 in the completion" in error["message"]


def test_the_deadline_is_408_and_not_to_be_replayed(http: httpx.Client, live: Live) -> None:
    answer = http.post("/generate", json={"prompt": "[hold:1]", "timeout": 0.05})
    assert answer.status_code == 408
    assert answer.headers["x-should-retry"] == "false"
    assert live.engine.wait_for(lambda: not live.engine.open)
