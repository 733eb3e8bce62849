"""What kills other loops: answered as documented, and nobody else notices."""

from __future__ import annotations

import pytest

from tests.e2e.program import Program

CHAT = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/completions", {"prompt": ""}, 400, "invalid_value"),
        ("/generate", {"prompt": ""}, 400, "invalid_value"),
        ("/v1/completions", {"prompt": [999999]}, 400, "invalid_value"),
        ("/v1/completions", {"prompt": [2048]}, 400, "invalid_value"),
        ("/v1/completions", {"prompt": [-1]}, 400, "invalid_value"),
        ("/v1/completions", {"prompt": "x", "logit_bias": {"2048": 1}}, 400, "invalid_value"),
        ("/v1/completions", {"prompt": [5] * 2048}, 400, "context_length_exceeded"),
        ("/v1/completions", {"prompt": "x", "max_tokens": 2048}, 400, "context_length_exceeded"),
        ("/v1/chat/completions", {"messages": CHAT, "max_tokens": 2040}, 400, "context_length_exceeded"),
        (
            "/v1/chat/completions",
            {"messages": CHAT, "tools": [{"type": "function"}]},
            400,
            "unsupported_parameter",
        ),
        ("/v1/completions", {"prompt": "x", "model": "gpt-4"}, 404, "model_not_found"),
        ("/generate", {"prompt": "x", "max_lenght": 4}, 400, "unsupported_parameter"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_refused(server: Program, path: str, body: dict, status: int, code: str, stream: bool) -> None:  # type: ignore[type-arg]
    pid = server.worker().pid
    extra = {"stream": True} if stream and path != "/generate" else {}
    got, answer = server.post(path, **body, **extra)
    assert got == status, answer
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["code"] == code or status == 400
    assert server.post("/generate", prompt="What is the capital of France?")[0] == 200
    assert server.worker().pid == pid


def test_the_numbers_of_an_overflow(server: Program) -> None:
    _, answer = server.post("/v1/completions", prompt=[5] * 2000, max_tokens=100)
    assert "maximum context length is 2048 tokens" in answer["error"]["message"]
    assert "2100 tokens (2000 in the prompt, 100 in the completion)" in answer["error"]["message"]


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.0},
        {"temperature": 1},
        {"top_k": 100_000},
        {"top_p": 1e-6},
        {"min_p": 1.0},
        {"temperature": 2.0, "frequency_penalty": 2.0, "presence_penalty": -2.0, "repetition_penalty": 1.2},
        {"logit_bias": {"5": 100}},
        {"n": 4, "seed": -1},
        {"seed": 2**63 - 1},
    ],
    ids=str,
)
def test_accepted(server: Program, sampling: dict) -> None:  # type: ignore[type-arg]
    status, answer = server.post("/v1/completions", prompt="Tell me", max_tokens=8, **sampling)
    assert status == 200, answer
    assert len(answer["choices"]) == sampling.get("n", 1)


def test_a_deadline_is_408_and_not_retried(server: Program) -> None:
    status, answer = server.post("/generate", prompt="Tell me a story.", max_length=1500, timeout=0.05)
    assert (status, answer["error"]["code"]) == (408, "timeout")
    status, answer = server.post(
        "/v1/completions", prompt="x", max_tokens=1500, timeout=0.05, logit_bias={"0": -100, "2": -100}
    )
    assert (status, answer["error"]["code"]) == (408, "timeout")
