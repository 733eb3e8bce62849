"""`[DONE]` if and only if the answer is complete, wherever the engine fails: OpenAI's own client judges."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.fakes.live import Live, live_server
from tests.faults.clients import Outcome

WORDS = " ".join(f"word{index}" for index in range(20))


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with live_server() as own:
        yield own


@pytest.fixture
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0, timeout=10) as made:
        yield made


def streamed(client: openai.OpenAI, content: str, n: int = 1) -> str:
    """The text of the first choice. Raises what the client raises."""
    asked = [{"role": "user", "content": content}]
    stream = client.chat.completions.create(model="scripted", messages=asked, stream=True, n=n)
    return "".join(c.choices[0].delta.content or "" for c in stream if c.choices and not c.choices[0].index)


@pytest.mark.parametrize("n", [1, 3])
def test_a_complete_one_raises_nothing(client: openai.OpenAI, n: int) -> None:
    assert streamed(client, f"[say:{WORDS}]", n) == WORDS


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("failure", ["fail:{}:engine_crashed", "fail:{}:out_of_memory", "raise:{}"])
def test_one_that_fails_before_any_token_raises(client: openai.OpenAI, failure: str, n: int) -> None:
    for token in range(21):
        with pytest.raises(openai.APIError) as raised:
            streamed(client, f"[say:{WORDS}] [{failure.format(token)}]", n)
        assert raised.value.code in ("engine_crashed", "out_of_memory", "engine_fault"), token


def test_one_that_ends_early_raises(client: openai.OpenAI) -> None:
    """Every choice has its reason, and still the engine did not say that it was done."""
    with pytest.raises(openai.APIError, match="ended early"):
        streamed(client, f"[say:{WORDS}] [early]")


@pytest.mark.parametrize("token", range(0, 21, 4))
def test_the_bytes_agree(live: Live, token: int) -> None:
    import asyncio

    from tests.faults.clients import Ask, asked

    async def both() -> tuple[Outcome, Outcome]:
        body = {"stream": True, "prompt": f"[say:{WORDS}]"}
        broken = {**body, "prompt": f"[say:{WORDS}] [fail:{token}:engine_crashed]"}
        whole = await asked(live.port, Ask("whole", "/v1/completions", body))
        return whole, await asked(live.port, Ask("broken", "/v1/completions", broken))

    whole, broken = asyncio.run(both())
    assert (whole.kind, whole.texts) == ("complete", (WORDS,))
    assert (broken.kind, broken.code, broken.status) == ("error", "engine_crashed", 200 if token else 503)
