"""Somebody else's answer: real sockets, our server over a scripted engine, providers that are wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from sidecar import errors
from sidecar.engine import EngineState, Failed
from sidecar.fallback import OUTCOMES, PROVIDERS, Provider, allowed
from sidecar.gate import Gate
from sidecar.generation import Capacity
from sidecar.shelf import ServedModel
from tests.e2e.program import until
from tests.fakes.engine import ANSWER as OURS
from tests.fakes.engine import ScriptedEngine, loading
from tests.fakes.hosted_provider import ANSWER, HostedProvider, hosted_provider, nobody
from tests.fakes.live import Live, live_server

TOGETHER_KEY, OPENAI_KEY = "sk-together-canary", "sk-openai-canary"
USER = {"role": "user", "content": "the canary's prompt"}
LOADING = loading()
Words = Sequence[str]


@dataclass
class Stage:
    """Our server, and the two that may answer in its place."""

    live: Live
    together: HostedProvider
    openai: HostedProvider
    before: dict[tuple[str, str], float] = field(default_factory=dict)

    def be(self, together: Words = (), second: Words = (), state: EngineState | None = LOADING) -> Stage:
        """As if it were new: nobody was asked anything, each is like its words."""
        for provider, words in ((self.together, together), (self.openai, second)):
            provider.become(*words)
        self.live.engine.set_state(state)
        self.before = {pair: self.total(*pair) for pair in product(PROVIDERS, OUTCOMES)}
        return self

    def ask(self, path: str = "/v1/chat/completions", **fields: Any) -> httpx.Response:
        prompt = {"messages": [USER]} if path.endswith("/chat/completions") else {"prompt": USER["content"]}
        return httpx.post(self.live.url + path, json=prompt | fields, timeout=30)

    def failed(self, code: str) -> float:
        registry = self.live.service.metrics.registry
        return registry.get_sample_value("inference_requests_total", {"status": code}) or 0.0

    def counted(self, provider: str, outcome: str) -> float:
        return self.total(provider, outcome) - self.before.get((provider, outcome), 0.0)

    def total(self, provider: str, outcome: str) -> float:
        labels = {"provider": provider, "outcome": outcome}
        registry = self.live.service.metrics.registry
        return registry.get_sample_value("fallback_requests_total", labels) or 0.0

    @property
    def asked(self) -> list[int]:
        return [len(self.together.asked), len(self.openai.asked)]


@contextmanager
def stage(
    together: Words | None = (),
    second: Words | None = (),
    state: EngineState | None = LOADING,
    engine: ScriptedEngine | None = None,
    **live: Any,
) -> Iterator[Stage]:
    """Both providers, each with its words; None is down. The engine is loading unless told otherwise."""
    with ExitStack() as stack:
        first, other = (
            stack.enter_context(nobody() if words is None else hosted_provider(*words))
            for words in (together, second)
        )
        providers = (
            Provider("together", first.url, "meta/llama", TOGETHER_KEY, more_samplers=True),
            Provider("openai", other.url, "gpt-test", OPENAI_KEY),
        )
        own = engine or ScriptedEngine(state=state)
        yield Stage(stack.enter_context(live_server(own, providers=providers, **live)), first, other)


@pytest.fixture(scope="module")
def shared() -> Iterator[Stage]:
    """One for all tests that leave it as it was."""
    with stage(per_hour=10_000) as on:
        yield on


def events(answer: httpx.Response) -> list[Any]:
    found = answer.text.removesuffix("\n\n").split("\n\n")
    return [line if line == "data: [DONE]" else json.loads(line.removeprefix("data: ")) for line in found]


def text_of(chunks: Sequence[Any]) -> str:
    choices = [choice for chunk in chunks if isinstance(chunk, dict) for choice in chunk.get("choices", [])]
    return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)


def test_our_own_answers_say_so(shared: Stage) -> None:
    on = shared.be(state=None)
    whole, streamed = on.ask(), on.ask(stream=True)
    native = on.ask("/generate")
    assert [one.headers["x-served-by"] for one in (whole, streamed, native)] == ["self"] * 3
    assert whole.json()["choices"][0]["message"]["content"] == OURS
    assert whole.json()["model"] == "scripted"
    assert on.asked == [0, 0]


@pytest.mark.parametrize("state", [LOADING, Failed("the file is damaged")])
def test_an_engine_that_is_not_ready_is_stood_in_for(shared: Stage, state: EngineState) -> None:
    on = shared.be(state=state)
    answer = on.ask()
    assert on.counted("together", "success") == 1
    assert (answer.status_code, answer.headers["x-served-by"]) == (200, "together")
    body = answer.json()
    assert body["choices"][0]["message"]["content"] == ANSWER
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["model"] == "meta/llama"
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (7, 4)
    (asked,) = on.together.asked
    assert (asked.path, asked.key) == ("/v1/chat/completions", TOGETHER_KEY)
    assert asked.body["model"] == "meta/llama"
    assert asked.body["messages"] == [USER]


@pytest.mark.parametrize(
    ("when", "code"),
    [("price:", "engine_stalled"), ("fail:0:", "engine_crashed"), ("fail:1:", "out_of_memory")],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_fails_before_the_first_token(
    shared: Stage, when: str, code: str, stream: bool
) -> None:
    on = shared.be(state=None)
    failed = on.failed(code)
    answer = on.ask("/v1/completions", prompt=f"[{when}{code}]", stream=stream)
    assert on.failed(code) == failed + 1  # of our own engine, whoever answered
    assert (answer.status_code, answer.headers["x-served-by"]) == (200, "together")
    assert on.together.asked[0].path == "/v1/completions"
    if stream:
        *chunks, done = events(answer)
        assert done == "data: [DONE]"
        assert text_of(chunks) == ANSWER
        assert {chunk["model"] for chunk in chunks} == {"meta/llama"}
    else:
        assert answer.json()["choices"][0]["text"] == ANSWER


def test_an_exception_that_nobody_foresaw_is_a_failure_too(shared: Stage) -> None:
    on = shared.be(state=None)
    assert on.ask("/generate", prompt="[raise:0]").json() == {"generated_text": ANSWER}


def test_behind_the_first_token_nobody_else_is_asked(shared: Stage) -> None:
    on = shared.be(state=None)
    answer = on.ask("/v1/completions", prompt="[fail:2:engine_crashed]", stream=True)
    assert answer.headers["x-served-by"] == "self"
    *_, last = events(answer)
    assert last["error"]["code"] == "engine_crashed"
    assert on.asked == [0, 0]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"prompt": "[price:context_length_exceeded]"}, 400),
        ({"prompt": "[price:invalid_value]"}, 400),
        ({"prompt": "[fail:0:timeout]"}, 408),
        ({"prompt": "[fail:0:queue_full]"}, 429),
        ({"prompt": "hi", "model": "gpt-4"}, 404),
        ({"prompt": "hi", "temperature": "warm"}, 400),
        ({"prompt": "hi", "echo": True}, 400),
    ],
)
def test_what_is_answered_4xx_stays_here(shared: Stage, fields: dict[str, Any], status: int) -> None:
    on = shared.be(state=None)
    assert on.ask("/v1/completions", **fields).status_code == status
    assert on.asked == [0, 0]


def test_a_full_queue_says_when_to_come_back() -> None:
    engine = ScriptedEngine(Capacity(1, 1024, 16, 6144))
    with stage(engine=engine, gate=Gate(max_queue=0)) as on:
        first = {"prompt": "[hold:2]", "stream": True}
        with httpx.stream("POST", f"{on.live.url}/v1/completions", json=first, timeout=30):
            assert engine.wait_for(lambda: bool(engine.held))
            refused = on.ask()
        assert (refused.status_code, "retry-after" in refused.headers) == (429, True)
    assert on.asked == [0, 0]


def test_who_waited_for_a_turn_in_vain_is_stood_in_for() -> None:
    engine = ScriptedEngine(Capacity(1, 1024, 16, 6144))
    with stage(engine=engine, gate=Gate(queue_timeout_s=0.05)) as on:
        first = {"prompt": "[hold:2]", "stream": True}
        with httpx.stream("POST", f"{on.live.url}/v1/completions", json=first, timeout=30):
            assert engine.wait_for(lambda: bool(engine.held))
            assert on.ask().headers["x-served-by"] == "together"


@pytest.mark.parametrize("path", ["/models/unload", "drain"])
def test_a_model_that_was_let_go_of_and_a_service_that_stops_are_not_stood_in_for(path: str) -> None:
    with stage(state=None) as on:
        if path == "drain":
            on.live.loop.call_soon_threadsafe(on.live.service.gate.drain)
        else:
            httpx.post(on.live.url + path, json={}, timeout=10)
        answer = on.ask()
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] in ("model_not_loaded", "draining")
    assert on.asked == [0, 0]


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        (["hangup"], "unreachable"),
        (["status:401"], "unauthorized"),
        (["status:403"], "unauthorized"),
        (["status:404"], "refused"),
        (["status:400"], "refused"),
        (["status:429"], "rate_limited"),
        (["status:500"], "server_error"),
        (["status:503", "retry:soon"], "server_error"),
        (["html"], "bad_answer"),
        (["cut:0"], "broken"),
        (["early:0"], "bad_answer"),
        (["junk:0"], "bad_answer"),
        (["error:0"], "bad_answer"),
        (["long:0"], "bad_answer"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value),
)
def test_the_next_one_is_asked_and_then_our_own_error_is_given(
    shared: Stage, words: Words, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    on = shared.be(together=words)
    answer = on.ask(stream=True)
    assert [on.counted("together", outcome), on.counted("openai", "success")] == [1, 1]
    assert answer.headers["x-served-by"] == "openai"
    assert text_of(events(answer)) == ANSWER
    assert on.openai.asked[0].key == OPENAI_KEY
    on = shared.be(together=words, second=words)
    answer = on.ask(stream=True)
    assert on.counted("openai", outcome) == 1
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_ready")
    assert "retry-after" in answer.headers
    said = caplog.text + answer.text + str([vars(record) for record in caplog.records])
    assert "canary" not in said


def test_one_that_is_down_is_as_good_as_none() -> None:
    with stage(together=None) as on:
        assert on.ask().headers["x-served-by"] == "openai"
        assert on.counted("together", "unreachable") == 1
    with stage(together=None, second=None) as on:
        assert on.ask().json()["error"]["code"] == "model_not_ready"


def test_a_slow_one_leaves_time_for_the_next(shared: Stage) -> None:
    on = shared.be(together=["mute"])
    answer = on.ask(timeout=2)
    assert on.counted("together", "timeout") == 1
    assert answer.headers["x-served-by"] == "openai"


def test_slow_is_not_dead(shared: Stage) -> None:
    on = shared.be(together=["slow:0.3"])
    assert on.ask(timeout=30).headers["x-served-by"] == "together"


def test_the_share_of_time_counts_for_the_first_token_alone(shared: Stage) -> None:
    on = shared.be(together=["pause:2.3"])
    assert text_of(events(on.ask(timeout=4, stream=True))) == ANSWER


def test_two_that_say_nothing_cost_the_requests_own_time_and_no_more(shared: Stage) -> None:
    on = shared.be(together=["mute"], second=["mute"])
    answer = on.ask(timeout=0.5)
    assert [on.counted(name, "timeout") for name in ("together", "openai")] == [1, 1]
    assert answer.json()["error"]["code"] == "model_not_ready"


@pytest.mark.parametrize("words", ["cut:2", "early:2", "junk:2", "error:2", "long:2"])
def test_what_breaks_behind_the_first_token_is_the_streams_last_event(shared: Stage, words: str) -> None:
    on = shared.be(together=[words])
    answer = on.ask(stream=True)
    assert on.counted("together", "broken") == 1
    assert answer.headers["x-served-by"] == "together"
    *chunks, last = events(answer)
    assert last["error"]["code"] == "provider_broke"
    assert text_of(chunks) == "Somebody else"
    assert "[DONE]" not in answer.text
    assert on.asked == [1, 0]


def test_the_same_of_a_whole_answer_is_an_error_of_its_own(shared: Stage) -> None:
    on = shared.be(together=["cut:2"])
    answer = on.ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_broke")


def test_a_deadline_counts_behind_the_first_token_too(shared: Stage) -> None:
    on = shared.be(together=["stall:2"])
    *_, last = events(on.ask(stream=True, timeout=0.5))
    assert on.counted("together", "timeout") == 1
    assert last["error"]["code"] == "timeout"
    assert on.asked == [1, 0]


@pytest.mark.parametrize("words", [["no-usage"], ["no-done"], ["empty", "comments", "bytes"]], ids=" ".join)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_what_is_odd_but_right_is_understood(words: Words, path: str) -> None:
    with stage(together=words) as on:
        answer = on.ask(path, stream=True, stream_options={"include_usage": True})
    *chunks, done = events(answer)
    assert (text_of(chunks), done) == (ANSWER, "data: [DONE]")
    assert chunks[-1]["usage"]["completion_tokens"] == (0 if "no-usage" in words else 4)


def test_whoever_asks_for_rest_gets_it() -> None:
    with stage(together=["status:429", "retry:60"]) as on:
        assert [on.ask().headers["x-served-by"] for _ in range(3)] == ["openai"] * 3
    assert on.asked == [1, 3]


def test_no_redirection_is_followed() -> None:
    with hosted_provider() as trap, stage(together=[f"moved:{trap.url}/stolen"]) as on:
        assert on.ask().headers["x-served-by"] == "openai"
    assert trap.asked == []


def test_certificates_are_checked(tmp_path: Path) -> None:
    pem = tmp_path / "own.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", pem, "-out", tmp_path / "crt.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    pem.write_text(pem.read_text() + (tmp_path / "crt.pem").read_text())
    with hosted_provider(certificate=pem) as stranger:
        provider = Provider("together", stranger.url, "m", TOGETHER_KEY)
        with live_server(ScriptedEngine(state=LOADING), providers=[provider]) as own:
            answer = httpx.post(f"{own.url}/v1/chat/completions", json={"messages": [USER]}, timeout=30)
    assert answer.status_code == 503
    assert stranger.asked == []


def test_the_cap_of_an_hour() -> None:
    with stage(per_hour=2) as on:
        answers = [on.ask() for _ in range(4)]
        assert on.counted("together", "capped") == 2
    assert [answer.status_code for answer in answers] == [200, 200, 503, 503]
    assert answers[-1].json()["error"]["code"] == "model_not_ready"
    assert on.asked == [2, 0]


@pytest.mark.parametrize(
    ("path", "fields", "asked"),
    [
        ("/v1/completions", {"prompt": [1, 2]}, [0, 0]),
        ("/v1/completions", {"prompt": ["a", "b"]}, [0, 0]),
        ("/v1/completions", {"logprobs": 1}, [0, 0]),
        ("/v1/chat/completions", {"logit_bias": {"5": 1}}, [0, 0]),
        ("/v1/chat/completions", {"n": 2}, [0, 0]),
        ("/v1/chat/completions", {"response_format": {"type": "json_object"}}, [0, 0]),
        ("/v1/chat/completions", {"top_k": 5}, [1, 0]),
        ("/v1/chat/completions", {"temperature": 0.2}, [1, 1]),
    ],
)
def test_what_would_mean_something_else_there_is_not_sent(
    shared: Stage, path: str, fields: dict[str, Any], asked: list[int]
) -> None:
    on = shared.be(together=["status:500"], second=["status:500"])
    assert on.ask(path, **fields).json()["error"]["code"] == "model_not_ready"
    assert on.asked == asked


def test_embeddings_are_of_our_own_model(shared: Stage) -> None:
    on = shared.be()
    assert on.ask("/v1/embeddings", input="hi").status_code in (400, 503)
    assert on.asked == [0, 0]


def test_a_client_that_leaves_ends_it_there_too(shared: Stage) -> None:
    on = shared.be(together=["stall:2"])
    body = {"messages": [USER], "stream": True}
    with httpx.stream("POST", f"{on.live.url}/v1/chat/completions", json=body, timeout=30) as answer:
        assert answer.headers["x-served-by"] == "together"
    until(lambda: on.counted("together", "cancelled") == 1, "nobody reads it any more", 20)


def test_a_drain_waits_for_it() -> None:
    with stage(together=["mute"]) as on, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(on.ask, timeout=20)
        until(lambda: bool(on.together.asked), "asked")
        drain = asyncio.run_coroutine_threadsafe(on.live.service.drain(30), on.live.loop)
        until(lambda: on.live.service.draining, "draining")
        on.together.gone.set()  # a connection that ends without a word: the next one answers
        drained = drain.result(30)
    assert (drained.finished, drained.cut) == (1, 0)
    assert answer.result().headers["x-served-by"] == "openai"


def test_a_model_that_is_unloaded_does_not_cut_it() -> None:
    with stage(together=["mute"]) as on, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(on.ask, timeout=20)
        until(lambda: bool(on.together.asked), "asked")
        assert httpx.post(f"{on.live.url}/models/unload", json={}, timeout=30).status_code == 200
        on.together.gone.set()
        assert answer.result().headers["x-served-by"] == "openai"


def test_the_log_says_who_answered_and_why(shared: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    on = shared.be(together=["status:500"])
    on.ask()
    (line,) = [vars(record) for record in caplog.records if record.message == "fallback"]
    assert (line["served_by"], line["model"], line["why"]) == ("openai", "gpt-test", "model_not_ready")
    assert line["tried"] == "together:server_error openai:success"
    assert (line["prompt_tokens"], line["completion_tokens"]) == (7, 4)


def test_tools_go_along_and_the_openai_client_understands() -> None:
    function = {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}
    tool = {"type": "function", "function": function}
    with stage(together=["call"], models=[ServedModel("scripted", tools=True)]) as on:
        client = openai.OpenAI(base_url=f"{on.live.url}/v1", api_key="unused", max_retries=0, timeout=30)
        answer = client.chat.completions.create(model="scripted", messages=[USER], tools=[tool])  # type: ignore[list-item]  # plain dicts
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.tool_calls
    call = answer.choices[0].message.tool_calls[0]
    assert (call.function.name, call.function.arguments) == ("get_weather", '{"city": "Oslo"}')  # type: ignore[union-attr]  # a function's
    assert on.together.asked[0].body["tools"][0]["function"]["name"] == "get_weather"


def test_stops_hold_however_many_they_are(shared: Stage) -> None:
    stops = ["1", "2", "3", "4", "says"]
    on = shared.be()
    answer = on.ask("/v1/completions", stop=stops)
    assert answer.json()["choices"][0]["text"] == "Somebody else "
    assert on.together.asked[0].body["stop"] == stops[:4]


def test_every_error_of_a_generation_is_decided() -> None:
    yes = {cls.__name__ for cls in errors.tree().values() if allowed(cls("text"))}
    assert yes == {
        "NotReady", "MemoryPressure", "QueueTimeout", "EngineError", "OutOfMemory", "EngineCrashed",
        "EngineStalled", "EngineFault", "ProviderBroke",
    }  # fmt: skip
