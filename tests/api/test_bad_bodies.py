"""Bodies that can not be used, and routes that are not there."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from sidecar.api.body import (
    INLINE_BYTES,
    MAX_BYTES,
    MAX_CONTAINERS,
    MAX_TEXTS,
    MAX_VALUES,
    json_object,
    parse,
)
from sidecar.api.errors import Refusal
from sidecar.errors import BadRequest
from sidecar.shelf import ServedModel
from tests.fakes.live import Live, live_server

JSON = {"content-type": "application/json"}
HELLO = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"  ",
        b"null",
        b"[]",
        b'"text"',
        b"{'prompt': 'hi'}",
        b'{"prompt": "hi",}',
        b'{"prompt": "hi"} {}',
        b'{"prompt": "hi", "prompt": "ho"}',
        b'{"x": {"a": 1, "a": 2}}',
        b'{"temperature": NaN}',
        b'{"temperature": -Infinity}',
        b'{"temperature": 1e999}',
        b'{"prompt": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"prompt": "a\x00b"}',
        b'\xef\xbb\xbf{"prompt": "hi"}',
        b'{"prompt": "\xe9"}',
        '{"prompt": "hi"}'.encode("utf-16"),
        b'{"x": ' + b"[" * 65 + b"]" * 65 + b"}",
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"x": ' + b"9" * 5000 + b"}",
        b"{" + b",".join(b'"%d":1' % i for i in range(300)) + b"}",
    ],
    ids=lambda raw: raw[:24].decode("latin-1"),
)
def test_is_400(http: httpx.Client, raw: bytes) -> None:
    answer = http.post("/generate", content=raw, headers=JSON)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert len(answer.content) < 1000


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_bad_request(raw: bytes) -> None:
    try:
        assert parse(raw) == json.loads(raw)
    except BadRequest as error:
        assert len(error.message) < 300


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30)
@given(st.dictionaries(st.text(), values, max_size=5))
def test_every_ordinary_object_is_read(value: dict[str, object]) -> None:
    try:
        raw = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:  # an infinity, or a lone surrogate
        return
    assert parse(raw) == value


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "multipart/form-data; boundary=x"},
        {**JSON, "content-encoding": "gzip"},
    ],
)
def test_is_415_with_a_command_that_works(live: Live, http: httpx.Client, headers: dict[str, str]) -> None:
    answer = http.post("/generate", content=b'{"prompt": "hi"}', headers=headers)
    assert answer.status_code == 415
    assert f"curl -s -X POST {live.url}/generate" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/completions", "/models/load", "/models/unload"])
def test_the_command_is_one_for_the_same_route(live: Live, http: httpx.Client, path: str) -> None:
    answer = http.post(path, content=b"x")
    assert answer.status_code == 415
    assert f"curl -s -X POST {live.url}{path} -H" in answer.json()["error"]["message"]


def test_charset_and_case_do_not_matter(http: httpx.Client) -> None:
    headers = {"content-type": 'APPLICATION/JSON; Charset="UTF-8"', "content-encoding": "identity"}
    assert http.post("/generate", content=b'{"prompt": "hi"}', headers=headers).status_code == 200


def test_too_large(http: httpx.Client) -> None:
    body = json.dumps({"prompt": "a" * MAX_BYTES}).encode()
    declared = http.post("/generate", content=body, headers=JSON)
    chunked = http.post("/generate", content=iter([body]), headers=JSON)
    assert (declared.status_code, chunked.status_code) == (413, 413)
    assert declared.json()["error"]["code"] == "request_too_large"
    assert http.get("/health").status_code == 200


@pytest.mark.parametrize(("autoload", "status"), [(False, 413), (True, 400)])
def test_a_text_model_reads_no_body_that_only_pictures_need(autoload: bool, status: int) -> None:
    """A model with eyes on the shelf is none that answers, unless a request may name it."""
    models = [ServedModel("text"), ServedModel("eyes", vision=True)]
    body = {"messages": [{"role": "user", "content": "a " * MAX_BYTES}]}
    with live_server(models=models, autoload=autoload) as own:
        answer = httpx.post(f"{own.url}/v1/chat/completions", json=body, timeout=30)
        assert answer.status_code == status


def test_far_too_large_is_refused_unread(live: Live) -> None:
    with socket.create_connection(("127.0.0.1", live.port), timeout=5) as client:
        client.sendall(
            b"POST /generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"expect: 100-continue\r\ncontent-length: 10737418240\r\n\r\n"
        )
        assert client.recv(4096).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("GET", "//v1/models", 404),
        ("GET", "/V1/Models", 404),
        ("GET", "/v1/models/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/generate", 405),
        ("PUT", "/v1/chat/completions", 405),
        ("POST", "/health", 405),
        ("BREW", "/generate/", 405),
    ],
)
def test_no_such_route(http: httpx.Client, method: str, path: str, status: int) -> None:
    answer = http.request(method, path)
    error = answer.json()["error"]
    assert answer.status_code == status
    assert "location" not in answer.headers
    assert status != 405 or answer.headers["allow"]
    assert path.startswith("/v1/models") or "curl" in error["message"]


def test_ignored_fields_are_named(http: httpx.Client) -> None:
    extra = {f"x{i}": 1 for i in range(20)} | {"bad\r\nname: é": 1}
    answer = http.post("/v1/chat/completions", json=HELLO | {"bad\r\n é": 1} | extra)
    names = answer.headers["x-ignored-params"].split(", ")
    assert answer.status_code == 200
    assert (len(names), names[:2]) == (16, ["bad____", "x0"])


@pytest.mark.parametrize(
    "field",
    ["grammar", "guided_json", "chat_template", "n_discard", "lora", "api_base", "functions"],
)
def test_dangerous_extensions_are_refused(http: httpx.Client, field: str) -> None:
    answer = http.post("/v1/chat/completions", json=HELLO | {field: "x"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unsupported_parameter"
    assert answer.json()["error"]["param"] == field


@pytest.mark.parametrize(
    ("given_id", "kept"),
    [("abc-1.2:3_4", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ("", False)],
)
def test_request_ids(http: httpx.Client, given_id: str, kept: bool) -> None:
    answer = http.get("/health", headers={"x-request-id": given_id})
    returned = answer.headers["x-request-id"]
    assert (returned == given_id) is kept
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", returned)


def _values(count: int, unit: bytes) -> bytes:
    """A body with a list of so many."""
    return b'{"x":[' + b",".join([unit] * count) + b"]}"


@pytest.mark.parametrize(
    ("unit", "most", "what"),
    [
        (b"1", MAX_VALUES - 2, "100000 values"),
        (b"1.5e300", MAX_VALUES - 2, "100000 values"),
        (b"[]", MAX_CONTAINERS - 2, "20000 lists and objects"),
        (b"{ }", MAX_CONTAINERS - 2, "20000 lists and objects"),
        (b'"a,[{"', MAX_TEXTS - 1, "20000 texts"),
        (b'"\\\\\\","', MAX_TEXTS - 1, "20000 texts"),
    ],
)
def test_values_are_counted_before_they_are_built(unit: bytes, most: int, what: str) -> None:
    assert len(parse(_values(most, unit))["x"]) == most
    with pytest.raises(BadRequest, match=f"more than {what}"):
        parse(_values(most + 1, unit))


@pytest.mark.parametrize("raw", [b"[]" * 400_000, b'"' * 400_000, b'{"a":1}' * 100_000])
def test_what_is_no_json_is_counted_too(raw: bytes) -> None:
    with pytest.raises(BadRequest, match="more than 20000"):
        parse(b'{"x":' + raw + b"}")


@pytest.mark.parametrize(
    "number", [b"1e999", b"-1e999", b"1" * 310 + b".5", b"1" * 513, b"[[1," + b"2" * 513]
)
@pytest.mark.parametrize("where", [b'{"x":%b}', b'{"x":[0,%b]}', b'{"x":[{"y":%b}]}'])
def test_a_number_is_not_endless(number: bytes, where: bytes) -> None:
    with pytest.raises(BadRequest):
        parse(where % number)


@pytest.mark.parametrize(
    "raw", [b'{"x":[{"a":1},{"a":{"b":1,"b":1}}]}', b'{"x":{"":0,"":0}}', b'{"x":1,"\\u0078":2}']
)
def test_no_key_comes_twice(raw: bytes) -> None:
    with pytest.raises(BadRequest, match="a key appears twice"):
        parse(raw)


def test_brackets_in_a_text_are_no_depth() -> None:
    text = "[" * 1000 + ',"\\' * 1000
    assert parse(json.dumps({"prompt": text}).encode()) == {"prompt": text}
    assert parse(b'{"x":' + b"[" * 63 + b"]" * 63 + b"}")
    with pytest.raises(BadRequest, match="deeper than 64"):
        parse(b'{"x":' + b"[" * 64 + b"]" * 64 + b"}")


@pytest.mark.parametrize(
    "raw",
    [
        b'{"messages":[' + b",".join([b"[]"] * 340_000) + b"]}",
        b'{"prompt":[' + b",".join([b"12"] * 340_000) + b"]}",
        b'{"metadata":{' + b",".join(b'"%d":1' % i for i in range(95_000)) + b"}}",
    ],
    ids=["lists", "token ids", "metadata"],
)
def test_a_hostile_body_is_refused_in_no_time(http: httpx.Client, raw: bytes) -> None:
    path = "/v1/completions" if b"prompt" in raw[:20] else "/v1/chat/completions"
    best = 1.0
    for _ in range(3):  # the machine may be busy with something else
        began = time.process_time()
        assert http.post(path, content=raw, headers=JSON).status_code == 400
        best = min(best, time.process_time() - began)
    assert best < 0.15


def test_a_large_body_is_read_beside_the_loop(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    readers: list[str] = []

    def noted(raw: bytes) -> dict[str, object]:
        readers.append(threading.current_thread().name)
        return parse(raw)

    monkeypatch.setattr("sidecar.api.body.parse", noted)
    for size in (10, INLINE_BYTES):
        assert http.post("/generate", json={"prompt": "a" * size}).status_code == 200
    assert not readers[0].startswith("body")
    assert readers[1].startswith("body")


def test_a_body_that_never_ends_is_408() -> None:
    async def story() -> None:
        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/generate", "headers": headers}
        with pytest.raises(Refusal) as refused:
            await json_object(Request(scope, receive), deadline_s=0.01)
        assert (refused.value.status, refused.value.headers) == (408, {"connection": "close"})

    asyncio.run(story())
