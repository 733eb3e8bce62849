"""Loading and unloading: one model at a time, what runs may finish, and nobody is answered by another's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from sidecar.engine import Failed, Ready, Unloaded
from sidecar.shelf import ServedModel
from tests.fakes.live import Live, live_server

A, B, C = ServedModel("a", ("profile-a",)), ServedModel("b", ("profile-b",)), ServedModel("c")
BROKEN = ServedModel("broken", title="can not be opened")
MODELS = [A, B, C, BROKEN]


def post(live: Live, path: str, **body: Any) -> httpx.Response:
    return httpx.post(live.url + path, json=body, timeout=20)


def chat(live: Live, text: str = "hi", **more: Any) -> httpx.Response:
    return post(live, "/v1/chat/completions", messages=[{"role": "user", "content": text}], **more)


def cards(live: Live) -> dict[str, tuple[bool, str]]:
    found = httpx.get(f"{live.url}/v1/models").json()["data"]
    return {card["id"]: (card["active"], card["status"]) for card in found}


class Asking:
    """A request in a thread of its own, which the engine holds."""

    def __init__(self, ask: Callable[[], httpx.Response], live: Live) -> None:
        self._pool = ThreadPoolExecutor(1)
        engine = live.engine
        self._future = self._pool.submit(ask)
        assert engine.wait_for(lambda: bool(engine.held))

    @property
    def answer(self) -> httpx.Response:
        return self._future.result(20)


def on_loop(live: Live, condition: Callable[[], bool]) -> None:
    async def wait() -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    live.run(wait())


def test_the_list_has_every_model_and_marks_the_active_one() -> None:
    with live_server(models=MODELS) as live:
        assert cards(live) == {
            "a": (True, "ready"),
            **dict.fromkeys(("b", "c", "broken"), (False, "unloaded")),
        }
        assert post(live, "/models/load", model="profile-b").json() == {"model": "b", "status": "ready"}
        assert cards(live)["a"] == (False, "unloaded")
        assert cards(live)["b"] == (True, "ready")
        with openai.OpenAI(base_url=f"{live.url}/v1", api_key="x", max_retries=0) as client:
            assert [model.id for model in client.models.list()] == ["a", "b", "c", "broken"]
            assert client.models.retrieve("profile-b").id == "b"


def test_unloading_ends_the_engine_and_says_how_to_come_back() -> None:
    with live_server(models=MODELS) as live:
        first = live.engine
        for _ in range(2):
            found = post(live, "/models/unload", model="a")
            assert (found.status_code, found.json()["status"]) == (200, "unloaded")
        assert first.stopped
        refused = chat(live)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "model_not_loaded"
        assert 'POST /models/load {"model": "a"}' in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) > 0
        health = httpx.get(f"{live.url}/health")
        assert (health.status_code, health.json()["phase"]) == (503, "unloaded")
        assert "POST /models/load" in health.json()["reason"]
        assert post(live, "/models/load").json() == {"model": "a", "status": "ready"}
        assert chat(live).status_code == 200
        assert live.engine is not first


@pytest.mark.parametrize("autoload", [False, True])
def test_the_probes_tell_an_unloaded_model_from_one_that_starts(autoload: bool) -> None:
    """With autoload too the next request waits for a load: it is not ready, though it is alive."""
    with live_server(models=MODELS, autoload=autoload) as live:
        assert httpx.get(f"{live.url}/startupz").json()["status"] == "ready"
        assert post(live, "/models/unload", model="a").status_code == 200
        told = {"status": "unloaded", "phase": "unloaded", "progress": None, "running": 0}
        for path, status in (("/readyz", 503), ("/startupz", 200)):
            found = httpx.get(f"{live.url}{path}")
            assert (found.status_code, found.json()) == (status, told)
        assert httpx.get(f"{live.url}/health").status_code == 503
        assert httpx.get(f"{live.url}/livez").status_code == 200
        assert chat(live).status_code == (200 if autoload else 503)
        assert httpx.get(f"{live.url}/readyz").json()["status"] == ("ready" if autoload else "unloaded")


def test_unloading_another_one_touches_nothing() -> None:
    with live_server(models=MODELS) as live:
        assert post(live, "/models/unload", model="b").json() == {"model": "b", "status": "unloaded"}
        assert not live.engine.stopped
        assert chat(live).status_code == 200


@pytest.mark.parametrize("path", ["/models/load", "/models/unload"])
def test_an_unknown_name_is_404_and_changes_nothing(path: str) -> None:
    with live_server(models=MODELS) as live:
        found = post(live, path, model="nope")
        assert (found.status_code, found.json()["error"]["code"]) == (404, "model_not_found")
        assert chat(live).status_code == 200
        assert post(live, path, model="a", force=True).status_code == 400


def test_loading_what_is_loaded_does_nothing() -> None:
    with live_server(models=MODELS) as live:
        assert post(live, "/models/load", model="a").status_code == 200
        assert len(live.shelf.opened) == 1
        live.engine.set_state(Failed("no file"))
        assert post(live, "/models/load", model="a").json()["status"] == "ready"
        assert len(live.shelf.opened) == 2


def test_a_model_that_can_not_be_opened_does_not_cost_the_one_that_is_held() -> None:
    with live_server(models=MODELS) as live:
        found = post(live, "/models/load", model="broken")
        assert (found.status_code, found.json()["error"]["code"]) == (503, "bad_config")
        assert not live.engine.stopped
        assert chat(live).status_code == 200


def test_what_runs_ends_whole_before_another_is_loaded() -> None:
    with live_server(models=MODELS) as live:
        old = live.engine
        running = Asking(lambda: chat(live, "[hold:2] [say:to the very end]"), live)
        loading = ThreadPoolExecutor(1).submit(post, live, "/models/load", model="b")
        on_loop(live, lambda: live.service.phase() == "unloading")
        assert httpx.get(f"{live.url}/readyz").status_code == 503
        during = chat(live)
        assert (during.status_code, during.json()["error"]["code"]) == (503, "model_not_loaded")
        assert not old.stopped
        old.release()
        assert running.answer.json()["choices"][0]["message"]["content"] == "to the very end"
        assert loading.result(20).json() == {"model": "b", "status": "ready"}
        assert old.stopped
        assert chat(live, model="b").json()["model"] == "b"


def test_what_does_not_end_in_time_is_cut() -> None:
    with live_server(models=MODELS, drain_s=0.1) as live:
        running = Asking(lambda: chat(live, "[hold:2]"), live)
        assert post(live, "/models/unload").status_code == 200
        assert running.answer.status_code == 503
        assert running.answer.json()["error"]["code"] == "model_not_loaded"


def test_a_request_for_another_model_is_refused_and_never_answered_by_this_one() -> None:
    with live_server(models=MODELS) as live:
        found = chat(live, model="b")
        assert (found.status_code, found.json()["error"]["code"]) == (503, "model_not_loaded")
        assert '"model": "b"' in found.json()["error"]["message"]
        assert chat(live, model="profile-a").json()["model"] == "a"
        assert live.shelf.models == ["a"]


def test_who_was_meant_for_a_model_that_has_gone_is_told() -> None:
    """Between the choice and the turn another one may be loaded."""
    with live_server(models=MODELS) as live:
        meant = live.run(live.service.choose("a", 10))
        post(live, "/models/load", model="b")

        async def ask() -> str:
            request = live.shelf.opened[0].requests
            assert request == []
            try:
                await live.service.embed(["x"], 10, meant)
            except Exception as error:
                return getattr(error, "code", "")
            return "answered"

        assert live.run(ask()) == "model_not_loaded"


def test_autoload_loads_what_is_asked_for() -> None:
    with live_server(models=MODELS, autoload=True) as live:
        assert chat(live, model="b").json()["model"] == "b"
        assert post(live, "/models/unload").status_code == 200
        assert chat(live).json()["model"] == "b"
        assert httpx.post(f"{live.url}/generate", json={"prompt": "hi"}).status_code == 200
        assert live.shelf.models == ["a", "b", "b"]
        assert chat(live, model="nope").status_code == 404
        assert chat(live, model="broken").json()["error"]["code"] == "bad_config"
        assert chat(live, model="b").status_code == 200


def test_autoload_does_not_try_a_failed_one_again_and_again() -> None:
    with live_server(models=MODELS, autoload=True) as live:
        live.engine.set_state(Failed("no file"))
        for _ in range(3):
            assert chat(live).json()["error"]["code"] == "model_not_ready"
        assert len(live.shelf.opened) == 1


def test_many_at_once_load_a_model_once() -> None:
    with live_server(models=MODELS, autoload=True) as live, ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda _: chat(live, model="b"), range(12)))
        assert {answer.json()["model"] for answer in found} == {"b"}
        assert live.shelf.models == ["a", "b"]


def test_loads_of_many_models_at_once_leave_one_and_end_the_others() -> None:
    with live_server(models=MODELS) as live, ThreadPoolExecutor(12) as pool:
        names = ["a", "b", "c"] * 4
        found = list(pool.map(lambda name: post(live, "/models/load", model=name), names))
        assert {answer.status_code for answer in found} == {200}
        held = [engine for engine in live.shelf.opened if not engine.stopped]
        assert held == [live.engine]
        assert live.service.model.id == live.shelf.models[-1]


def test_a_load_goes_on_when_whoever_asked_for_it_leaves() -> None:
    with live_server(models=MODELS, autoload=True) as live:
        old = live.engine
        running = Asking(lambda: chat(live, "[hold:2]"), live)
        impatient = chat(live, model="b", timeout=0.2)
        assert impatient.json()["error"]["code"] == "timeout"
        old.release()
        assert running.answer.status_code == 200
        on_loop(live, lambda: live.service.model == B and isinstance(live.service.state(), Ready))
        assert old.stopped
        assert chat(live, model="b").status_code == 200


def test_no_more_wait_for_a_model_than_may_wait() -> None:
    from sidecar.gate import Gate

    with live_server(models=MODELS, autoload=True, gate=Gate(max_queue=1)) as live:
        old = live.engine
        running = Asking(lambda: chat(live, "[hold:2]"), live)
        pool = ThreadPoolExecutor(1)
        waiting = pool.submit(chat, live, model="b")
        on_loop(live, lambda: live.service.phase() == "unloading")
        full = chat(live, model="b")
        assert (full.status_code, full.json()["error"]["code"]) == (429, "queue_full")
        old.release()
        assert running.answer.status_code == 200
        assert waiting.result(20).json()["model"] == "b"


def test_a_stop_during_a_load_starts_nothing_any_more() -> None:
    with live_server(models=MODELS) as live:
        old = live.engine
        running = Asking(lambda: chat(live, "[hold:2]"), live)
        loading = ThreadPoolExecutor(1).submit(post, live, "/models/load", model="b")
        on_loop(live, lambda: live.service.phase() == "unloading")
        live.run(live.service.stop())
        assert running.answer.json()["error"]["code"] == "draining"
        assert loading.result(20).json()["error"]["code"] == "draining"
        assert old.stopped
        assert not live.engine.started or live.engine is old
        assert isinstance(live.service.state(), Unloaded)
        assert post(live, "/models/load", model="c").json()["error"]["code"] == "draining"


def test_unload_while_it_loads() -> None:
    from tests.fakes.engine import loading

    with live_server(models=MODELS) as live:
        live.engine.set_state(loading())
        assert post(live, "/models/load", model="a").json() == {
            "model": "a", "status": "loading", "phase": "load", "progress": 0.5,
        }  # fmt: skip
        assert post(live, "/models/unload", model="a").json()["status"] == "unloaded"
        assert live.engine.stopped


def test_autoload_during_a_switch_waits_for_it_and_comes_after_it() -> None:
    with live_server(models=MODELS, autoload=True) as live, ThreadPoolExecutor(2) as pool:
        old = live.engine
        running = Asking(lambda: chat(live, "[hold:2]", model="a"), live)
        switch = pool.submit(post, live, "/models/load", model="b")
        on_loop(live, lambda: live.service.phase() == "unloading")
        late = pool.submit(chat, live, model="a")
        old.release()
        assert running.answer.status_code == 200
        assert switch.result(20).json()["model"] == "b"
        assert late.result(20).json()["model"] == "a"
        assert live.shelf.models[:2] == ["a", "b"]
