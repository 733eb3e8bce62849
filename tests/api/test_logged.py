"""What stands in the log of a request: who, how long, how many, how much; and never what was asked."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from sidecar import logs
from sidecar.engine import Loading
from sidecar.pressure import Budgets
from tests.e2e.program import until
from tests.fakes.engine import ScriptedEngine
from tests.fakes.live import live_server

CANARY = "canary-8d21"
SCRIPTS = ["", "[raise:1]", "[raise:0]", "[fail:1:out_of_memory]", "[fail:0:engine_fault]", "[early]",
           "[price:invalid_value]", "[say:echo]"]  # fmt: skip


@contextmanager
def logged(form: str, prompts: bool = False) -> Iterator[io.StringIO]:
    """All that the process logs inside the block, debugging included, in that form."""
    root, written = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    logs.configure(form, written, prompts=prompts)
    root.setLevel(logging.DEBUG)
    try:
        yield written
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def lines(written: io.StringIO, message: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in written.getvalue().splitlines()]
    return [line for line in found if line["message"] == message]


class Quoting(ScriptedEngine):
    """Its failures quote what was asked, as a library's exceptions may."""

    async def price(self, request: Any) -> Any:
        if "[quote]" in str(request.prompt):
            raise KeyError(request.prompt)
        return await super().price(request)


def ask_everything(url: str) -> set[int]:
    """Right and wrong requests on every route, all about the canary; the statuses."""
    statuses = set()
    with httpx.Client(base_url=url, timeout=30) as http:
        for script in (*SCRIPTS, "[quote]"):
            words = f"{CANARY} {script}"
            chat = {"messages": [{"role": "user", "content": words}], "max_tokens": 8}
            asks: list[tuple[str, Any]] = [
                ("/v1/chat/completions", chat),
                ("/v1/chat/completions", {**chat, "stream": True}),
                ("/v1/completions", {"prompt": words, "stream": True, "n": 2}),
                ("/v1/completions", {"prompt": words, "temperature": CANARY, CANARY: CANARY}),
                ("/v1/chat/completions", {"messages": [{"role": CANARY, "content": words}]}),
                ("/generate", {"prompt": words}),
                ("/v1/embeddings", {"input": words}),
                ("/v1/completions", {"prompt": words, "model": CANARY}),
            ]
            statuses |= {http.post(path, json=body).status_code for path, body in asks}
        statuses.add(http.post("/generate", content=CANARY.encode() + b"\xff").status_code)
    return statuses


@pytest.mark.parametrize("form", ["plain", "json"])
def test_nobodys_words_whatever_goes_wrong_and_however_much_is_logged(form: str) -> None:
    with logged(form) as written, live_server(Quoting()) as live:
        live.run(_debugging())
        assert {200, 400, 404, 500, 503} <= ask_everything(live.url)
    text = written.getvalue()
    assert text.count("generation failed unexpectedly") >= 6
    assert "KeyError" in text  # that it failed, and where, is there
    assert CANARY not in text


def test_words_where_they_are_wanted() -> None:
    with logged("json", prompts=True) as written, live_server(Quoting(), log_prompts=True) as live:
        ask_everything(live.url)
    assert CANARY in written.getvalue()


def test_a_generations_line() -> None:
    engine = ScriptedEngine()
    with logged("json") as written, live_server(engine, budgets=Budgets(memory_mib=64.0)) as live:
        httpx.post(
            f"{live.url}/v1/completions",
            json={"prompt": "one two", "max_tokens": 4},
            headers={"x-request-id": "mine"},
        )
        until(lambda: bool(lines(written, "request")), "the line of the request", 10)
    (line,) = lines(written, "generation")
    counts = {"prompt_tokens": 2, "cached_tokens": 0, "completion_tokens": 4}
    assert {name: line[name] for name in counts} == counts
    assert (line["request_id"], line["outcome"], line["level"]) == ("mine", "success", "info")
    assert 0 <= line["price_s"] + line["queue_s"] <= line["first_token_s"] <= line["seconds"] + 0.002
    assert line["own_mib"] == pytest.approx(0.0, abs=0.1)
    (request,) = lines(written, "request")
    assert (request["request_id"], request["status"], request["path"]) == ("mine", 200, "/v1/completions")


def test_a_generation_that_never_began_says_as_far_as_it_got() -> None:
    engine = ScriptedEngine(state=Loading("load", 0.5))
    with logged("json") as written, live_server(engine) as live:
        httpx.post(f"{live.url}/generate", json={"prompt": "hi"})
    (line,) = lines(written, "generation")
    assert line["outcome"] == "model_not_ready"
    assert {"price_s", "queue_s", "first_token_s", "completion_tokens"} & line.keys() == set()


def test_what_happens_to_the_memory_is_logged_with_its_figures() -> None:
    with logged("json") as written, live_server(budgets=Budgets(memory_mib=64.0)) as live:
        live.run(live.service.pressure.ask("warn", 63.0, 60.0))
    (line,) = [
        line for line in map(json.loads, written.getvalue().splitlines()) if line.get("event") == "warn"
    ]
    assert (line["before_mib"], line["budget_mib"], line["by"]) == (63.0, 64.0, "watchdog")
    assert line["own_mib"] == pytest.approx(0.0, abs=0.1)


async def _debugging() -> None:
    asyncio.get_running_loop().set_debug(True)
