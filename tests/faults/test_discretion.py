"""No request stands in the log, writes a file, makes the server call anybody, or enters without a key."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from sidecar.api import create_app
from sidecar.gate import Gate
from sidecar.metrics import Metrics
from sidecar.service import Service
from sidecar.shelf import only
from tests.e2e.program import ROOT, Program, until
from tests.fakes.engine import ScriptedEngine
from tests.fakes.live import MODEL, live_server
from tests.faults.conftest import echoing

PROMPT, KEY, TOKEN = "canary-prompt-7f3a", "canary-key-91bc", "canary-token-55de"
ENGINES = [
    pytest.param({}, id="worker"),
    pytest.param(
        {"FAULTS_ENGINE": "llama", "LLAMA_SERVER_PATH": os.environ.get("LLAMA_SERVER_PATH", "")},
        id="llama",
        marks=pytest.mark.llama,
    ),
]


def bodies(words: str) -> Iterator[tuple[str, bytes, str]]:
    """Path, body and type of requests that are right, and wrong in many ways, all about `words`."""
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": words}], "max_tokens": 8}
    fields: list[tuple[str, Any]] = [
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", {**chat, "stream": True, "n": 2}),
        ("/v1/chat/completions", {**chat, "model": words}),
        ("/v1/chat/completions", {**chat, "temperature": words, "stop": [words], "user": words}),
        ("/v1/chat/completions", {**chat, words: words, "metadata": {words: words}}),
        ("/v1/chat/completions", {"messages": [{"role": words, "content": words}]}),
        ("/v1/completions", {"prompt": words, "max_tokens": 8}),
        ("/v1/completions", {"prompt": [words, words], "stream": True, "max_tokens": 8}),
        ("/v1/completions", {"prompt": words, "grammar": words}),
        ("/v1/completions", {"prompt": words * 2000}),
        ("/generate", {"prompt": words, "max_length": 8}),
        ("/generate", {"prompt": words, words: 1}),
        ("/models/load", {"model": words}),
        (f"/v1/{words}", {"prompt": words}),
    ]
    for path, body in fields:
        yield path, json.dumps(body).encode(), "application/json"
    yield "/generate", json.dumps({"prompt": words}).encode()[:-1], "application/json"
    yield "/generate", json.dumps({"prompt": words}).encode(), "text/plain"
    yield "/generate", words.encode() + b"\xff", "application/json"


def post(own: Program, path: str, body: bytes, kind: str, key: str = KEY) -> int:
    headers = {"content-type": kind, "authorization": f"Bearer {key}", "x-request-id": "mine"}
    request = urllib.request.Request(own.url + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.read()
        return error.code


@pytest.mark.parametrize("environ", ENGINES)
def test_nobodys_words_are_in_the_log(tmp_path: Path, environ: dict[str, str]) -> None:
    with echoing(tmp_path, API_KEY=KEY, HF_TOKEN=TOKEN, **environ) as own:
        statuses = {post(own, *request) for request in bodies(PROMPT)}
        assert {200, 400, 404, 415} <= statuses
        assert post(own, "/generate", b"{}", "application/json", key=f"{KEY}x") == 401
        # The engine that dies over it says nothing of it either.
        os.kill(own.child().pid, signal.SIGKILL)
        until(lambda: post(own, *next(bodies(PROMPT))) == 200, "another life", 20)
        printed = own.printed()
    assert printed.count('"generation"') >= 8
    # A path is no secret: it is in the line of the request that asked for it.
    printed = printed.replace(f"/v1/{PROMPT}", "")
    assert [secret for secret in (PROMPT, KEY, TOKEN) if secret in printed] == []


def test_unless_it_is_told_to(tmp_path: Path) -> None:
    with echoing(tmp_path, API_KEY=KEY, LOG_PROMPTS="1") as own:
        post(own, *next(bodies(PROMPT)))
        assert PROMPT in own.printed()
        assert KEY not in own.printed()


@contextlib.contextmanager
def tripwire() -> Iterator[tuple[str, list[Any]]]:
    """An address, and everybody who connected to it."""
    caught: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def watch() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    caught.append(connection.recv(200))
                    connection.close()

        threading.Thread(target=watch, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", caught
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("environ", ENGINES)
def test_no_request_makes_it_call_anybody_or_write_a_file(tmp_path: Path, environ: dict[str, str]) -> None:
    """Whatever would go out by a proxy, to the hub, or to an address in a request ends at the tripwire."""
    home = tmp_path / "home"
    home.mkdir()
    with tripwire() as (url, caught):
        ways = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HF_ENDPOINT"), url)
        where = {"HOME": str(home), "TMPDIR": str(home)}
        with echoing(tmp_path, API_KEY=KEY, **ways, **where, **environ) as own:
            before = _files(home) | _files(ROOT / "sidecar") | _files(ROOT / "config")
            for request in (*bodies(PROMPT), *_with_addresses(url)):
                post(own, *request)
            after = _files(home) | _files(ROOT / "sidecar") | _files(ROOT / "config")
            assert after == before
            assert _written_by(own) <= {str(own.output)}
        assert caught == []


def _with_addresses(url: str) -> Iterator[tuple[str, bytes, str]]:
    """Every field that anywhere in this trade is an address, or once was."""
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    names = ("model", "api_base", "base_url", "lora", "chat_template", "user", "webhook", "callback_url")
    for name in names:
        yield "/v1/chat/completions", json.dumps({**chat, name: f"{url}/{name}"}).encode(), "application/json"
    parts = [{"type": "image_url", "image_url": {"url": f"{url}/picture.png"}}]
    image = {"messages": [{"role": "user", "content": parts}]}
    schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"$ref": f"{url}/schema.json"}}}
    yield "/v1/chat/completions", json.dumps(image).encode(), "application/json"
    yield "/v1/chat/completions", json.dumps({**chat, "response_format": schema}).encode(), "application/json"
    yield "/models/load", json.dumps({"model": f"{url}/model"}).encode(), "application/json"
    yield "/generate", json.dumps({"prompt": url, "max_length": 4}).encode(), "application/json"


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            about = path.stat()
            found[str(path)] = (about.st_mtime_ns, about.st_size)
    return found


def _written_by(own: Program) -> set[str]:
    """Files that the server or its engine hold open for writing."""
    found = set()
    for pid in (own.process.pid, *(child.pid for child in own.children())):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                flags = int(
                    Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text().split("flags:")[1].split()[0], 8
                )
                target = os.readlink(entry)
                if flags & (os.O_WRONLY | os.O_RDWR) and os.path.isfile(target):
                    found.add(target)
    return found


def _routes() -> list[tuple[str, str]]:
    """What the application itself says it serves: a route of tomorrow is asked for too."""
    metrics = Metrics(CollectorRegistry())
    waiting: list[Any] = [
        *create_app(Service(only(MODEL, ScriptedEngine()), MODEL, Gate(), metrics), metrics).routes
    ]
    found = []
    while waiting:
        route = waiting.pop()
        if hasattr(route, "path"):
            path = route.path.replace("{name:path}", "x")
            found += [(method, path) for method in route.methods]
        else:
            waiting += route.original_router.routes
    return found


def test_every_route_asks_for_the_key() -> None:
    routes = _routes()
    assert {("POST", "/generate"), ("POST", "/models/load"), ("GET", "/docs")} <= set(routes)
    with live_server(api_key=KEY) as live:
        open_ones = set()
        for method, path in (
            *routes,
            ("POST", "/v1/nothing"),
            ("OPTIONS", "/generate"),
            ("GET", "/metrics/"),
        ):
            for spelling in {path, f"{path.rstrip('/')}/"}:
                request = urllib.request.Request(live.url + spelling, method=method)
                try:
                    urllib.request.urlopen(request, timeout=10).close()
                    status = 200
                except urllib.error.HTTPError as error:
                    status = error.code
                if status != 401:
                    open_ones.add(path)
        assert open_ones == {"/health", "/livez", "/readyz", "/startupz"}
