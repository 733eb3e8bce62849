"""The key, the Host and the Origin."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from sidecar.api.auth import HostCheck, KeyCheck, is_loopback
from tests.fakes.live import live_server

KEY = "sk-test"
GUARDED = ["/", "/v1/models", "/v1/models/", "/metrics", "/docs", "/openapi.json", "/nope"]


@pytest.fixture(scope="module")
def guarded() -> Iterator[httpx.Client]:
    with live_server(api_key=KEY) as own, httpx.Client(base_url=own.url, timeout=10) as client:
        yield client


@pytest.mark.parametrize("path", GUARDED)
def test_everything_asks_for_the_key(guarded: httpx.Client, path: str) -> None:
    answer = guarded.get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz/", "/startupz"])
def test_the_probes_do_not(guarded: httpx.Client, path: str) -> None:
    assert guarded.get(path).status_code == 200


@pytest.mark.parametrize("given", ["Bearer sk-test", "bearer sk-test", "BEARER  sk-test"])
def test_the_right_key(guarded: httpx.Client, given: str) -> None:
    assert guarded.get("/v1/models", headers={"authorization": given}).status_code == 200


@pytest.mark.parametrize(
    "given",
    ["Bearer sk-tes", "Bearer", "sk-test", "Basic sk-test", "Bearer sk-test sk-test", ""],
)
def test_a_wrong_key(guarded: httpx.Client, given: str) -> None:
    assert guarded.get("/v1/models", headers={"authorization": given}).status_code == 401


def test_bytes_that_are_no_text() -> None:
    assert not KeyCheck(KEY).passes(b"Bearer \xff\xfe")
    assert KeyCheck(None).passes(b"")


def test_the_key_comes_before_the_body(guarded: httpx.Client) -> None:
    answer = guarded.post("/generate", content=b"{" * 100, headers={"content-type": "text/plain"})
    assert answer.status_code == 401


def test_the_first_page_shows_where_the_key_goes(guarded: httpx.Client) -> None:
    page = guarded.get("/", headers={"authorization": f"Bearer {KEY}"})
    assert "authorization: Bearer $API_KEY" in page.text
    assert KEY not in page.text


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        ("localhost:8000", True),
        ("127.0.0.1", True),
        ("127.9.9.9:1", True),
        ("[::1]:8000", True),
        ("llm-sidecar:8000", True),
        ("LOCALHOST.", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("192.168.1.5", False),
        ("a:b:c", False),
        ("[::1", False),
    ],
)
def test_hosts_of_a_loopback_service(host: str, passes: bool) -> None:
    assert HostCheck("127.0.0.1").allows_host(host) is passes


def test_hosts_elsewhere() -> None:
    assert HostCheck("0.0.0.0").allows_host("any.example")
    listed = HostCheck("0.0.0.0", ["llm.example"])
    assert listed.allows_host("llm.example:8000")
    assert not listed.allows_host("evil.example")


@pytest.mark.parametrize(
    ("origin", "passes"),
    [
        ("http://localhost:3000", True),
        ("http://127.0.0.1:8000", True),
        ("https://app.example", True),
        ("http://evil.example", False),
        ("null", False),
        ("file://", False),
        ("http://[", False),
        ("http://localhost@evil.example", False),
    ],
)
def test_origins(origin: str, passes: bool) -> None:
    check = HostCheck("127.0.0.1", ["app.example"])
    assert check.allows_origin(origin, "localhost:8000") is passes


def test_refused_over_the_wire(http: httpx.Client) -> None:
    rebound = http.get("/v1/models", headers={"host": "evil.example:8000"})
    crossed = http.get("/v1/models", headers={"origin": "http://evil.example"})
    assert (rebound.status_code, crossed.status_code) == (403, 403)
    assert rebound.json()["error"]["code"] == "host_not_allowed"
    assert "access-control-allow-origin" not in crossed.headers


def test_loopback() -> None:
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example")
