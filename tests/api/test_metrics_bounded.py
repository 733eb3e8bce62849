"""No request makes a series: whatever clients name, the scrape has as many lines afterwards."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from typing import Any

from tests.fakes.engine import ScriptedEngine
from tests.fakes.live import Live, live_server

STRANGE = [
    "x" * 300,
    'a"} 1\nevil{b="',
    "vllm:fake",
    "../../etc",
    "ä中\u202e",
    "0",
    " ",
    "scripted ",
    "SCRIPTED",
]


def ask(live: Live, path: str, body: Any = None, method: str = "POST", **headers: str) -> int:
    request = urllib.request.Request(live.url + path, json.dumps(body).encode(), headers, method=method)
    request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def everything(live: Live, words: str) -> set[int]:
    """The words wherever a client can put some."""
    path = f"/v1/{urllib.request.quote(words, safe='')}"
    return {
        ask(live, "/v1/completions", {"model": words, "prompt": "hi"}),
        ask(live, "/v1/completions", {"model": "alias", "prompt": f"hi {words}", "user": words}),
        ask(live, "/v1/completions", {"prompt": f"[fail:1:{words}]"}),
        ask(live, "/v1/completions", {"prompt": f"[price:{words}]"}),
        ask(live, "/models/load", {"model": words}),
        ask(live, path),
        ask(live, path, method="GET"),
        ask(
            live,
            "/v1/completions",
            {"prompt": "hi"},
            **{"x-request-id": words.encode("ascii", "replace").hex()},
        ),
    }


def series(live: Live) -> set[str]:
    """Each line of the scrape without its value."""
    text = live.service.metrics.text().decode()
    return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}


def test_strange_names_make_no_series() -> None:
    with live_server(ScriptedEngine()) as live:
        for words in STRANGE:  # every outcome that there is has been seen
            assert {200, 404, 500} <= everything(live, words)
        before = series(live)
        for words in STRANGE:
            everything(live, f"{words}-again")
        assert series(live) == before
        assert not any(words in line for line in before for words in ("evil", "xxx", "alias"))
        assert any('model_name="scripted"' in line for line in before)


def test_a_scrape_while_everything_moves_is_whole() -> None:
    """From another thread, as METRICS_PORT does it."""
    with live_server(ScriptedEngine()) as live:
        ask(live, "/v1/completions", {"prompt": "hi"})
        over, failures = threading.Event(), list[BaseException]()

        def scrape() -> None:
            last = -1.0
            try:
                while not over.is_set():
                    value = live.service.metrics.registry.get_sample_value(
                        "vllm:generation_tokens_total", {"model_name": "scripted", "engine": "0"}
                    )
                    assert value is not None
                    assert value >= last
                    last = value
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=scrape)
        thread.start()
        for _ in range(40):
            ask(live, "/v1/completions", {"prompt": "hi [say:one two three]", "n": 2})
        over.set()
        thread.join(20)
        assert failures == []
