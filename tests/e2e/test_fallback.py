"""The whole program with FALLBACK=1: what it says at its start, and that no key is to be seen anywhere."""

from __future__ import annotations

import urllib.request
from pathlib import Path

from tests.e2e.program import finished, program, until
from tests.fakes.hosted_provider import hosted_provider

KEY = "sk-canary-of-the-key"
SCRIPTED = ("-m", "tests.fakes.serve_scripted")


def test_a_start_says_where_prompts_go_and_nothing_shows_a_key(tmp_path: Path) -> None:
    with (
        hosted_provider("status:401") as wrong_key,
        hosted_provider() as good,
        program(
            tmp_path,
            entry=SCRIPTED,
            LOADING="1",
            LOG_FORMAT="json",
            FALLBACK="1",
            TOGETHER_API_KEY=KEY,
            TOGETHER_MODEL="meta/llama",
            TOGETHER_BASE_URL=wrong_key.url,
            OPENAI_API_KEY=KEY,
            OPENAI_MODEL="gpt-test",
            OPENAI_BASE_URL=good.url,
        ) as running,
    ):
        until(lambda: running.get("/livez")[0] == 200, "listening")
        status, body = running.post("/generate", prompt="the prompt's own canary")
        assert (status, body) == (200, {"generated_text": "Somebody else says Paris."})
        health = str(running.get("/health"))
        with urllib.request.urlopen(f"{running.url}/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
        until(lambda: '"served_by": "openai"' in running.printed(), "the log's line")
        printed = running.printed()
    assert f"prompts are sent to together ({wrong_key.url}, meta/llama), then openai ({good.url}" in printed
    assert 'fallback_requests_total{outcome="unauthorized",provider="together"} 1.0' in metrics
    assert "canary" not in printed + health + metrics


def test_fallback_without_anybody_to_ask_is_no_start() -> None:
    code, _, said = finished(FALLBACK="1")
    assert code == 78
    assert "neither TOGETHER_API_KEY nor OPENAI_API_KEY is set" in said
