"""The bytes of a stream: `[DONE]` if and only if the answer is complete."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from sidecar.api.render import TextRender
from sidecar.api.sse import frames
from sidecar.generation import Delta, Done, Event, Finished, Started, Usage
from tests.fakes.engine import ANSWER, ScriptedEngine
from tests.fakes.live import live_server
from tests.faults.clients import Answer, judged, read_answer


def streamed(http: httpx.Client, content: str, **fields: Any) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": content}], "stream": True, **fields}
    return http.post("/v1/chat/completions", json=body)


def asking(version: str, prompt: str, **fields: Any) -> bytes:
    """A stream of a completion, asked for in bytes."""
    body = json.dumps({"prompt": prompt, "stream": True, **fields}).encode()
    head = f"POST /v1/completions HTTP/{version}\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def lines(answer: httpx.Response) -> list[str]:
    assert answer.text.endswith("\n\n")
    found = answer.text.removesuffix("\n\n").split("\n\n")
    assert all(line.startswith("data: ") for line in found)
    return [line.removeprefix("data: ") for line in found]


def test_a_complete_stream(http: httpx.Client) -> None:
    answer = streamed(http, "hi")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    *chunks, last = lines(answer)
    assert last == "[DONE]"
    parsed = [json.loads(chunk) for chunk in chunks]
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in parsed)
    assert not any("usage" in chunk for chunk in parsed)
    assert parsed[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert parsed[-1]["choices"][0]["delta"] == {}
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in parsed)
    assert text == ANSWER


@pytest.mark.parametrize("prompt", ["hi", "[pace:1]"])
def test_to_a_client_of_http_1_0_the_end_of_the_connection_is_the_end(
    http: httpx.Client, prompt: str
) -> None:
    found = b""
    with socket.create_connection((http.base_url.host, http.base_url.port or 0), timeout=10) as client:
        client.sendall(asking("1.0", prompt))
        while data := client.recv(65536):
            found += data
    head, _, body = found.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body.startswith(b"data: ") and body.endswith(b"data: [DONE]\n\n")
    assert all(event.startswith(b"data: ") for event in body.removesuffix(b"\n\n").split(b"\n\n"))


@pytest.mark.parametrize("prompt", ["hi", "[pace:1]"])
def test_chunks_are_whole_and_the_connection_is_used_again(http: httpx.Client, prompt: str) -> None:
    async def three() -> None:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
            for _ in range(3):
                writer.write(asking("1.1", prompt))
                answer = await read_answer(reader)
                assert answer.headers["transfer-encoding"] == "chunked"
                found = judged("raw", answer, 0.0)
                assert (found.kind, found.texts) == ("complete", (ANSWER,))
            writer.close()

    asyncio.run(three())


def test_positions_count_on_whether_words_come_together_or_one_by_one(http: httpx.Client) -> None:
    def offsets(prompt: str) -> list[int]:
        body = {"prompt": prompt, "stream": True, "logprobs": 1, "max_tokens": 6}
        *chunks, _ = lines(http.post("/v1/completions", json=body))
        scores = [json.loads(chunk)["choices"][0]["logprobs"] for chunk in chunks]
        return [offset for score in scores if score for offset in score["text_offset"]]

    assert offsets("[pace:2]") == offsets("hi") == [0, 3, 11, 14, 21, 24]


def test_usage_is_null_until_the_last_chunk(http: httpx.Client) -> None:
    *chunks, _ = lines(streamed(http, "hi", stream_options={"include_usage": True}))
    usages = [json.loads(chunk)["usage"] for chunk in chunks]
    assert usages[:-1] == [None] * (len(usages) - 1)
    assert usages[-1]["completion_tokens"] == 6


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("[fail:2:engine_crashed]", "engine_crashed"),
        ("[raise:2]", "engine_fault"),
        ("[early]", "engine_fault"),
    ],
)
def test_a_broken_stream_ends_with_one_error(http: httpx.Client, script: str, code: str) -> None:
    answer = streamed(http, script)
    *chunks, last = lines(answer)
    assert answer.status_code == 200
    assert json.loads(last)["error"]["code"] == code
    assert not any("error" in json.loads(chunk) for chunk in chunks)
    assert "[DONE]" not in answer.text


def test_a_deadline_in_mid_stream(http: httpx.Client) -> None:
    *_, last = lines(streamed(http, "[hold:2]", timeout=0.1))
    assert json.loads(last)["error"]["code"] == "timeout"


def test_text_is_any_text(http: httpx.Client) -> None:
    said = 'naïve "quote" \\ \u2028 👩‍👩‍👧 data: [DONE]'.replace("]", "")
    *chunks, _ = lines(streamed(http, f"[say:{said}]"))
    parsed = [json.loads(chunk)["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(parsed) == said


def test_a_quiet_stream_is_kept_alive() -> None:
    with live_server(ping_s=0.02) as live, httpx.Client(base_url=live.url, timeout=10) as http:
        body = {"prompt": "[hold:2]", "stream": True}
        with http.stream("POST", "/v1/completions", json=body) as answer:
            received = answer.iter_lines()
            assert any(line == ": ping" for line in received)
            live.engine.release()
            assert any(line == "data: [DONE]" for line in received)


def test_draining_ends_a_stream_with_an_error() -> None:
    with (
        live_server(ScriptedEngine()) as own,
        httpx.Client(base_url=own.url, timeout=10) as http,
        http.stream("POST", "/v1/completions", json={"prompt": "[hold:2]", "stream": True}) as answer,
    ):
        assert own.engine.wait_for(lambda: bool(own.engine.held))
        assert own.run(own.service.drain(0.01)).cut == 1
        assert '"code":"draining"' in answer.read().decode()
        refused = http.post("/generate", json={"prompt": "hi"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert refused.headers["retry-after"]
        assert http.get("/readyz").json()["status"] == "draining"


def test_what_came_together_goes_out_together() -> None:
    async def batches() -> AsyncIterator[Sequence[Event]]:
        yield [Delta(0, "b"), Delta(0, "c")]
        yield [Finished(0, "stop"), Done(Usage(1, 3))]

    async def written() -> list[bytes]:
        first = [Started(1), Delta(0, "a")]
        return [body async for body in frames(first, batches(), TextRender("id", "m"), 1)]

    bodies = asyncio.run(written())
    assert [body.count(b"data: ") for body in bodies] == [1, 2, 1, 1]
    assert bodies[-1] == b"data: [DONE]\n\n"


@pytest.mark.parametrize("pace", ["", "[pace:1]"])
def test_a_reader_who_takes_nothing_costs_nobody_a_slot(pace: str) -> None:
    # Each word comes eight times in its event: more bytes than the sockets hold for a reader like this.
    said = " ".join(f"{index:04}" * 1000 for index in range(80))
    body = {"prompt": f"{pace}[say:{said}]", "stream": True, "logprobs": 5, "n": 4}
    with (
        live_server(ScriptedEngine()) as own,
        httpx.Client(base_url=own.url, timeout=30) as http,
        http.stream("POST", "/v1/completions", json=body) as answer,
    ):
        assert own.engine.wait_for(lambda: bool(own.engine.requests) and not own.engine.open, 30)
        own.run(own.service.gate.idle())
        text = answer.read()
        assert len(text) > 8 * 2**20
        found = judged("slow", Answer(200, dict(answer.headers), text), 0.0)
        assert (found.kind, found.texts) == ("complete", (said,) * 4)
