"""The probes, the figures and the first page."""

from __future__ import annotations

import shlex
import subprocess

import httpx
import pytest

from sidecar.budget import MIB, Plan
from sidecar.engine import Failed, Loading, Ready
from sidecar.generation import EngineStats
from sidecar.pressure import Budgets
from tests.fakes.engine import ANSWER, CAPACITY, ScriptedEngine, loading
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
        "plan": None,
        "memory": {
            "budget_mib": None,
            "used_mib": 0.0,
            "source": "resident",
            "rung": "steady",
            "kv_tokens_reserved": 0,
            "kv_tokens_total": 65536,
        },
    }


def test_the_plan_and_what_is_reserved_of_it() -> None:
    plan = Plan(10752.0, 5000.0, 300.0, 400.0, 2000.0, 4096, 16, 6144)
    engine = ScriptedEngine(state=Ready("cuda:0", CAPACITY, plan=plan))
    engine.told = EngineStats(memory_reserved_bytes=6000 * MIB)
    budgets = Budgets(vram_mib=10752.0)
    with live_server(engine, budgets=budgets) as own, httpx.Client(base_url=own.url, timeout=10) as http:
        said = http.get("/health").json()["plan"]
        assert (said["weights_mib"], said["kv_tokens"], said["full_contexts"]) == (5000.0, 65536, 10)
        assert (said["total_mib"], said["sentence"]) == (7700.0, plan.sentence())
        with http.stream("POST", "/v1/completions", json={"prompt": "[hold:1][pages:10]", "stream": True}):
            assert engine.wait_for(lambda: bool(engine.held))
            assert httpx.get(f"{own.url}/health").json()["memory"] == {
                "budget_mib": 10752.0,
                "used_mib": 6400.0,
                "source": "allocator",
                "rung": "steady",
                "kv_tokens_reserved": 160,
                "kv_tokens_total": 65536,
            }
            text = httpx.get(f"{own.url}/metrics").text
            assert "llm_sidecar_kv_tokens_reserved 160.0" in text
            assert "llm_sidecar_kv_tokens_total 65536.0" in text
            assert 'llm_sidecar_vram_used_bytes{scope="own"} 6.7108864e+09' in text
            assert "llm_sidecar_vram_budget_bytes 1.1274289152e+10" in text
            engine.release()


def test_not_admitting_is_not_ready_and_says_why() -> None:
    with live_server() as own, httpx.Client(base_url=own.url, timeout=10) as http:
        own.run(own.service.pressure.ask("stop_admitting", 10600.0, 60.0))
        assert [http.get(path).status_code for path in PROBES] == [503, 200, 503, 200]
        assert http.get("/readyz").json()["status"] == "not admitting"
        body = http.get("/health").json()
        assert (body["status"], body["model_loaded"], body["phase"]) == ("error", True, "ready")
        assert "close to its budget" in body["message"]
        refused = http.post("/generate", json={"prompt": "hi"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "memory_pressure")
        assert refused.headers["retry-after"] == "10"
        own.run(own.service.pressure.ask("resume", 9000.0, 60.0))
        assert http.post("/generate", json={"prompt": "hi"}).status_code == 200


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
