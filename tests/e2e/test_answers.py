"""The embedded model behind the real API: right answers, each to its own question."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from sidecar.embedded import MODEL_DIR
from tests.e2e.program import Program
from tools.embedded_model.text import Question, held_out

CAPITAL = "What is the capital of France?"
STORY = "Tell me a story about a fox."


def questions(count: int) -> list[Question]:
    """Chats without tools, of many kinds."""
    plain = [q for q in held_out() if q.messages and not q.tools]
    assert len(plain) >= count
    return plain[:count]


def ask(client: openai.OpenAI, question: Question) -> str:
    answer = client.chat.completions.create(
        model="embedded",
        messages=list(question.messages),
        temperature=0,
        max_tokens=120,  # type: ignore[arg-type]
    )
    return (answer.choices[0].message.content or "").strip()


def test_the_curl_of_the_readme(server: Program) -> None:
    status, body = server.post("/generate", prompt=CAPITAL)
    assert (status, list(body)) == (200, ["generated_text"])
    assert "Paris" in body["generated_text"]
    assert server.post("/generate/", prompt=CAPITAL, max_length=128)[1] == body


def test_raw_and_chat_both_know(client: openai.OpenAI) -> None:
    raw = client.completions.create(model="embedded", prompt=CAPITAL, temperature=0)
    assert "Paris" in raw.choices[0].text
    assert raw.choices[0].finish_reason == "stop"
    chat = client.chat.completions.create(
        model="embedded", messages=[{"role": "user", "content": CAPITAL}], temperature=0
    )
    assert "Paris" in (chat.choices[0].message.content or "")
    assert chat.usage is not None
    assert chat.usage.total_tokens == chat.usage.prompt_tokens + chat.usage.completion_tokens


def test_32_concurrent_chats_each_get_their_own_answer(client: openai.OpenAI) -> None:
    """Right, or at least the same as alone: a tiny model may be wrong, a server may not."""
    asked = questions(32)
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(lambda q: ask(client, q), asked))
    alone = [ask(client, question) for question in asked]
    assert together == alone
    right = sum(answer == q.answer.strip() for answer, q in zip(together, asked, strict=True))
    assert right >= 28, f"{right} of 32 are exactly right"


def test_seeds_hold_under_load(client: openai.OpenAI) -> None:
    def sampled(seed: int) -> str:
        answer = client.completions.create(
            model="embedded", prompt="Tell me a story.", temperature=1.5, seed=seed, max_tokens=40
        )
        return answer.choices[0].text

    alone = [sampled(seed) for seed in range(4)]
    with ThreadPoolExecutor(24) as pool:
        crowd = list(pool.map(sampled, [seed for _ in range(6) for seed in range(4)]))
    assert crowd == alone * 6
    assert len(set(alone)) == 4


def test_a_stream_is_the_same_text(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="embedded", prompt=STORY, temperature=0, max_tokens=150)
    stream = client.completions.create(
        model="embedded", prompt=STORY, temperature=0, max_tokens=150, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(stream)
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage or chunks[-1].usage is not None
    assert len(chunks) > 20


def test_a_long_prompt_is_computed_once(client: openai.OpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    """900 tokens and a tail of its own: less than a page more than that is computed; the ratio is shown."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    ratios = []
    for attempt in range(3):
        text = f"Number {attempt}. " + "The quick brown fox sleeps under the old tree. " * 200
        ids = tokenizer(text)["input_ids"][:900]
        tail = tokenizer(" Now something else.")["input_ids"]
        first, _ = first_token_s(client, ids)
        second, cached = first_token_s(client, ids + tail)
        assert len(ids) + len(tail) - cached < 16 + len(tail)
        ratios.append(first / second)
    with capsys.disabled():
        print(
            f" first token behind the same 900 tokens: {statistics.median(ratios):.1f} times as fast ", end=""
        )


def first_token_s(client: openai.OpenAI, ids: list[int]) -> tuple[float, int]:
    began = time.monotonic()
    stream = client.completions.create(
        model="embedded", prompt=ids, max_tokens=8, temperature=0, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    taken, cached = 0.0, 0
    for chunk in stream:
        taken = taken or time.monotonic() - began
        if chunk.usage and chunk.usage.prompt_tokens_details:
            cached = chunk.usage.prompt_tokens_details.cached_tokens or 0
    return taken, cached


@pytest.mark.parametrize("streamed", [False, True])
def test_stop_strings_and_choices(client: openai.OpenAI, streamed: bool) -> None:
    answer = client.completions.create(
        model="embedded", prompt=CAPITAL, temperature=0, stop=["is Par"], n=2, stream=streamed
    )
    texts = {0: "", 1: ""}
    if streamed:
        for chunk in answer:
            for choice in chunk.choices:
                texts[choice.index] += choice.text
    else:
        texts = {choice.index: choice.text for choice in answer.choices}
    assert texts[0] == texts[1]
    assert texts[0].endswith("France ")


def test_logprobs_bias_and_top_alternatives(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="embedded", messages=[{"role": "user", "content": CAPITAL}], temperature=0, logprobs=True,
        top_logprobs=3, max_tokens=4,
    )  # fmt: skip
    content = answer.choices[0].logprobs.content  # type: ignore[union-attr]
    assert content
    assert len(content) == 4
    assert all(token.logprob <= 0 for token in content)
    assert content[0].top_logprobs[0].token == content[0].token
    assert len(content[0].top_logprobs) == 3


def test_unicode_survives_tokens_and_chunks(client: openai.OpenAI) -> None:
    text = "Grüße 日本 🙂 naïve"
    with client.chat.completions.create(
        model="embedded", messages=[{"role": "user", "content": f"Repeat: {text}"}], temperature=1.0, seed=1,
        max_tokens=60, stream=True,
    ) as stream:  # fmt: skip
        said = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert "\ufffd" not in said
