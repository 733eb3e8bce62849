"""The whole program over a real llama-server: unloading gives everything back, a switch drains first."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.e2e.program import Program, program, until

pytestmark = pytest.mark.llama
REGISTRY = """
profiles:
  first:
    backend: llamacpp
    model_id: one
    supports_tools: true
    llamacpp: {model_path: embedded, ctx_size: 1024, parallel: 2, threads: 1, threads_batch: 1}
  second:
    backend: llamacpp
    model_id: two
    supports_embeddings: true
    llamacpp: {model_path: embedded, ctx_size: 512, parallel: 1, threads: 1, threads_batch: 1}
  damaged:
    backend: llamacpp
    model_id: three
    llamacpp: {model_path: MODEL, ctx_size: 512, threads: 1}
"""


@pytest.fixture
def server(llama_server_path: str, tmp_path: Path) -> Iterator[Program]:
    """Serves `first`, and knows two more."""
    from sidecar import embedded

    damaged = tmp_path / "damaged.gguf"
    whole = embedded.GGUF_Q8_0.read_bytes()
    damaged.write_bytes(whole.replace(b"blk.4.ffn_up.weight", b"blk.4.ffn_xx.weight"))
    registry = tmp_path / "profiles.yaml"
    registry.write_text(REGISTRY.replace("MODEL", str(damaged)))
    with program(
        tmp_path, LLM_PROFILES_CONFIG_PATH=str(registry), LLM_PROFILE_NAME="first",
        LLAMA_SERVER_PATH=llama_server_path,
    ) as running:  # fmt: skip
        until(running.ready, "ready")
        until(lambda: "curl -s" in running.printed(), "the ready line")
        yield running


def llamas(server: Program) -> list[psutil.Process]:
    found = psutil.Process(server.process.pid).children(recursive=True)
    return [child for child in found if "llama-server" in " ".join(child.cmdline())]


def held(server: Program) -> int:
    """Bytes that all of the program's children hold."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    return sum(child.memory_info().rss for child in children)


def chat(server: Program, **more: object) -> tuple[int, dict[str, object]]:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    return server.post("/v1/chat/completions", messages=messages, max_tokens=16, temperature=0, **more)


def test_after_an_unload_there_is_no_child_and_no_memory(server: Program) -> None:
    assert len(llamas(server)) == 1
    assert held(server) > 5 * 2**20
    status, body = server.post("/models/unload", model="first")
    assert (status, body["status"]) == (200, "unloaded")
    assert llamas(server) == []
    assert held(server) == 0
    status, body = chat(server)
    assert (status, body["error"]["code"]) == (503, "model_not_loaded")
    assert server.get("/health")[1]["phase"] == "unloaded"
    status, _ = server.post("/models/load", model="first")
    assert status in (200, 202)
    until(server.ready, "ready again")
    status, body = chat(server)
    assert (status, body["model"]) == (200, "one")
    assert "Paris" in json.dumps(body)


def streamed(server: Program, began: threading.Event) -> list[str]:
    body = {
        "messages": [{"role": "user", "content": "Tell me a story."}],
        "max_tokens": 400, "stream": True, "logit_bias": dict.fromkeys("012", -100),
    }  # fmt: skip
    request = urllib.request.Request(
        server.url + "/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        lines = []
        for line in answer:
            lines.append(line.decode().strip())
            began.set()
    return lines


def test_a_switch_lets_a_running_stream_end_whole(server: Program) -> None:
    began = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(streamed, server, began)
        assert began.wait(30)
        (old,) = llamas(server)
        status, body = server.post("/models/load", model="second")
        assert status in (200, 202)
        assert body["model"] == "two"
        assert not old.is_running() or old.status() == psutil.STATUS_ZOMBIE
        lines = [line for line in stream.result(60) if line]
    assert lines[-1] == "data: [DONE]"
    assert '"finish_reason":"length"' in lines[-2]
    until(server.ready, "the second is ready")
    assert chat(server)[1]["model"] == "two"
    assert len(llamas(server)) == 1
    status, vectors = server.post("/v1/embeddings", model="second", input=["France", "Paris", "x" * 400])
    assert status == 200, vectors
    assert [len(row["embedding"]) for row in vectors["data"]] == [128] * 3


def test_a_model_that_can_not_be_loaded_leaves_the_sidecar_up_and_says_why(server: Program) -> None:
    status, _ = server.post("/models/load", model="damaged")
    assert status == 202
    until(lambda: "blk.4.ffn_up.weight" in json.dumps(server.get("/health")), "the reason in /health")
    status, body = server.get("/health")
    assert status == 503
    assert "the GGUF is damaged" in body["reason"]
    assert server.get("/livez")[0] == 200
    assert server.post("/models/load", model="first")[0] in (200, 202)
    until(server.ready, "ready again")
    assert chat(server)[0] == 200
