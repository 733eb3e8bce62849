"""Every failure has its row, and every row its headers."""

from __future__ import annotations

import httpx
import pytest

from sidecar import errors
from sidecar.api.errors import STATUS, answer, row
from sidecar.engine import Failed
from sidecar.gate import Gate
from sidecar.generation import Capacity
from tests.fakes.engine import CAPACITY, ScriptedEngine, loading
from tests.fakes.live import Live, live_server

TYPES = {
    "invalid_request_error",
    "authentication_error",
    "not_found_error",
    "rate_limit_error",
    "timeout_error",
    "server_error",
    "unavailable_error",
}


@pytest.mark.parametrize("cls", errors.tree().values(), ids=lambda cls: cls.__name__)
def test_every_class_has_a_row_of_its_own(cls: type[errors.SidecarError]) -> None:
    assert cls in STATUS
    found = row(cls("text"))
    assert found.type in TYPES
    assert 400 <= found.status < 600
    assert found.status != 422


@pytest.mark.parametrize("cls", errors.tree().values(), ids=lambda cls: cls.__name__)
def test_clients_that_replay_are_told_whether_to(cls: type[errors.SidecarError]) -> None:
    response = answer(cls("text"))
    if response.status_code in (408, 409, 429) or response.status_code >= 500:
        waits = "retry-after" in response.headers
        stops = response.headers.get("x-should-retry") == "false"
        assert waits != stops
        assert not waits or 1 <= int(response.headers["retry-after"]) <= 60


def test_a_long_message_is_cut() -> None:
    assert len(answer(errors.BadRequest("x" * 100_000)).body) < 8192


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("model_not_ready", 503),
        ("engine_crashed", 503),
        ("engine_stalled", 503),
        ("out_of_memory", 503),
        ("engine_fault", 500),
        ("invalid_value", 400),
    ],
)
@pytest.mark.parametrize("when", ["price:", "fail:0:"])
def test_through_the_door(http: httpx.Client, code: str, status: int, when: str) -> None:
    response = http.post("/generate", json={"prompt": f"[{when}{code}]"})
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert response.json()["error"]["code"] == code


def test_an_unexpected_exception_is_a_500_without_details(http: httpx.Client) -> None:
    response = http.post("/generate", json={"prompt": "[raise:0]"})
    assert response.status_code == 500
    assert "Traceback" not in response.text
    assert "raised by script" not in response.text


def test_a_full_queue_is_429_with_a_hint() -> None:
    engine = ScriptedEngine(Capacity(1, 1024, 16, 6144))
    with (
        live_server(engine, Gate(max_queue=0)) as own,
        httpx.Client(base_url=own.url, timeout=10) as http,
        http.stream("POST", "/v1/completions", json={"prompt": "[hold:1]", "stream": True}),
    ):
        refused = httpx.post(f"{own.url}/generate", json={"prompt": "hi"})
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert int(refused.headers["retry-after"]) >= 1


def test_loading_and_failed_are_503(live: Live, http: httpx.Client) -> None:
    try:
        live.engine.set_state(loading())
        waiting = http.post("/generate", json={"prompt": "hi"})
        live.engine.set_state(Failed("the file is damaged"))
        failed = http.post("/generate", json={"prompt": "hi"})
    finally:
        live.engine.set_state()
    assert (waiting.status_code, waiting.headers["retry-after"]) == (503, "5")
    assert "load" in waiting.json()["error"]["message"]
    assert failed.status_code == 503
    assert "the file is damaged" in failed.json()["error"]["message"]


def test_what_can_never_fit_is_400(http: httpx.Client) -> None:
    response = http.post("/generate", json={"prompt": f"[pages:{CAPACITY.pages + 1}]"})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
