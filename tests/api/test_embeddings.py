"""Vectors through the real OpenAI client."""

from __future__ import annotations

import base64
import struct
import threading
from collections.abc import Iterator

import httpx
import openai
import pytest

from sidecar.shelf import ServedModel
from tests.fakes.live import Live, live_server


@pytest.fixture(scope="module")
def vectors() -> Iterator[Live]:
    with live_server(models=[ServedModel("vectors", embeddings=True)]) as live:
        yield live


@pytest.fixture(scope="module")
def client(vectors: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{vectors.url}/v1", api_key="x", max_retries=0, timeout=10) as made:
        yield made


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_one_vector_for_each_input_in_order(client: openai.OpenAI, encoding: str) -> None:
    found = client.embeddings.create(model="vectors", input=["a", "four", "to"], encoding_format=encoding)
    given = [row.embedding for row in found.data]
    if encoding == "base64":
        given = [list(struct.unpack("<2f", base64.b64decode(v))) for v in given]
    assert given == [[1.0, 0.5], [4.0, 0.5], [2.0, 0.5]]
    assert [row.index for row in found.data] == [0, 1, 2]
    assert (found.usage.prompt_tokens, found.usage.total_tokens) == (7, 7)


def test_the_client_asks_for_base64_by_itself_and_reads_it(client: openai.OpenAI) -> None:
    assert client.embeddings.create(model="vectors", input="four").data[0].embedding == [4.0, 0.5]
    assert client.embeddings.create(model="vectors", input=[5, 6, 7]).data[0].embedding == [3.0, 0.5]
    assert len(client.embeddings.create(model="vectors", input=[[5], [6, 7]]).data) == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": [True]}, "input"),
        ({"input": ["x"] * 257}, "input"),
        ({"input": "x", "dimensions": 8}, "dimensions"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "x", "model": "other"}, "model"),
        ({}, "input"),
    ],
)
def test_what_can_not_be_used_is_named(vectors: Live, fields: dict[str, object], param: str) -> None:
    found = httpx.post(f"{vectors.url}/v1/embeddings", json=fields)
    assert found.status_code in (400, 404)
    assert found.json()["error"]["param"] == param


def test_a_model_without_vectors_says_so(http: httpx.Client) -> None:
    found = http.post("/v1/embeddings", json={"input": "x"})
    assert found.status_code == 400
    assert "makes no embeddings (supports_embeddings)" in found.json()["error"]["message"]


def test_an_unload_cuts_what_does_not_end_in_time() -> None:
    with live_server(models=[ServedModel("vectors", embeddings=True)], drain_s=0.1) as live:
        found: list[httpx.Response] = []
        ask = threading.Thread(
            target=lambda: found.append(
                httpx.post(f"{live.url}/v1/embeddings", json={"input": "[hold]"}, timeout=20)
            )
        )
        ask.start()
        engine = live.engine
        assert engine.wait_for(lambda: "embed" in engine.held)
        assert httpx.post(f"{live.url}/models/unload", json={}).json()["status"] == "unloaded"
        ask.join()
        assert found[0].status_code == 503
        assert found[0].json()["error"]["code"] == "model_not_loaded"
