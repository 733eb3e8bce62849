"""The probes, the figures and the first page."""

from __future__ import annotations

import shlex
import subprocess

import httpx
import pytest

from sidecar.engine import Failed, Loading
from tests.fakes.engine import ANSWER, ScriptedEngine, loading
from tests.fakes.live import Live, live_server

PROBES = ["/health", "/livez", "/readyz", "/startupz"]


def test_ready(http: httpx.Client) -> None:
    answer = http.get("/health")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "model_loaded": True,
        "device": "cpu",
        "message": "Ready.",
        "model": "scripted",
        "cuda_available": False,
        "cuda_device_count": 0,
        "memory_allocated_gb": "0.00",
        "memory_reserved_gb": "0.00",
        "phase": "ready",
        "progress": 1.0,
    }


def test_loading_then_ready_then_restarting() -> None:
    engine = ScriptedEngine(state=loading("download", 0.25))
    with live_server(engine) as own, httpx.Client(base_url=own.url, timeout=10) as http:
        body = http.get("/health")
        assert body.status_code == 503
        assert body.json()["status"] == "error"
        assert body.json()["model_loaded"] is False
        assert body.json()["message"] == "Model or tokenizer not loaded."
        assert (body.json()["phase"], body.json()["progress"]) == ("download", 0.25)
        assert [http.get(path).status_code for path in PROBES] == [503, 200, 503, 503]
        engine.set_state()
        assert [http.get(path).status_code for path in PROBES] == [200, 200, 200, 200]
        engine.set_state(Loading("restart", was_ready=True))
        assert [http.get(path).status_code for path in PROBES] == [503, 200, 503, 200]
        assert http.get("/readyz").headers["retry-after"] == "5"


def test_failed_says_why() -> None:
    engine = ScriptedEngine(state=Failed("no such file"))
    with live_server(engine) as own:
        body = httpx.get(f"{own.url}/health").json()
        assert (body["phase"], body["reason"]) == ("failed", "no such file")
        assert httpx.get(f"{own.url}/readyz").json()["status"] == "failed"


@pytest.mark.parametrize("path", [*PROBES, "/metrics"])
def test_head_and_slash(http: httpx.Client, path: str) -> None:
    head = http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert http.get(f"{path}/").status_code == 200


def test_probes_answer_while_every_slot_is_busy(live: Live, http: httpx.Client) -> None:
    body = {"prompt": ["[hold:1]"] * 4, "stream": True}
    with http.stream("POST", "/v1/completions", json=body):
        assert live.engine.wait_for(lambda: len(live.engine.held) == 4)
        assert httpx.get(f"{live.url}/health", timeout=1).status_code == 200
        assert "active_requests 4.0" in httpx.get(f"{live.url}/metrics", timeout=1).text
        live.engine.release()


def test_metrics_text(http: httpx.Client) -> None:
    http.post("/generate", json={"prompt": "hi"})
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'inference_requests_total{status="success"}' in answer.text
    assert "inference_duration_seconds_bucket" in answer.text
    assert "active_requests 0.0" in answer.text
    assert "gpu_" not in answer.text


def test_metrics_json(http: httpx.Client) -> None:
    body = http.get("/metrics", headers={"accept": "application/json"}).json()
    assert body["service"] == "llm-sidecar"
    assert (body["model_name"], body["model_loaded"], body["device"]) == ("scripted", True, "cpu")
    assert (body["gpu_name"], body["gpu_memory_allocated_gb"]) == ("cpu", "0.00")


def test_the_first_page_has_a_command_that_works(live: Live, http: httpx.Client) -> None:
    page = http.get("/")
    assert page.headers["content-type"].startswith("text/plain")
    command = next(line for line in page.text.splitlines() if line.startswith("curl"))
    assert live.url in command
    found = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=10)
    assert ANSWER in found.stdout


def test_docs(http: httpx.Client) -> None:
    assert http.get("/docs").status_code == 200
    schema = http.get("/openapi.json").json()
    assert {"/generate", "/health", "/v1/chat/completions"} <= set(schema["paths"])
    body = schema["paths"]["/generate"]["post"]["requestBody"]["content"]["application/json"]
    name = body["schema"]["$ref"].rpartition("/")[2]
    assert "max_length" in schema["components"]["schemas"][name]["properties"]
