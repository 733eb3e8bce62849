"""Pictures by address: from named hosts only, and never from where a client has no business."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from sidecar.api.remote_images import fetched, is_local_name, is_public
from sidecar.errors import BadRequest
from sidecar.shelf import ServedModel
from tests.api.test_images import file
from tests.fakes.live import live_server


class Host(ThreadingHTTPServer):
    """Serves one picture at /a.png, and what nobody should follow or wait for."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        super().__init__(("127.0.0.1", 0), _Files)

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Files(BaseHTTPRequestHandler):
    server: Host

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        head: dict[str, str] = {}
        status, body = 200, file()
        if self.path == "/moved":
            status, head = 302, {"location": "/a.png"}
        elif self.path == "/none":
            status = 404
        elif self.path == "/large":
            body = bytes(11 * 1024 * 1024)
        elif self.path == "/packed":
            head = {"content-encoding": "gzip"}
        elif self.path == "/slow":
            time.sleep(5)
        elif self.path == "/page":
            body = b"<html>"
        self.send_response(status)
        for name, value in head.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def messages(*urls: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}} for url in urls]}]


def fetch(url: str, *hosts: str, seconds: float = 5.0) -> list[Any]:
    return asyncio.run(fetched(messages(url), hosts, seconds))


def test_a_named_host_is_asked_and_the_picture_arrives(host: Host) -> None:
    model = ServedModel("eyes", vision=True, image_hosts=(host.name,))
    with live_server(models=[model]) as live:
        body = {"messages": messages(f"http://{host.name}/a.png", f"HTTP://{host.name}/b.png")}
        found = httpx.post(f"{live.url}/v1/chat/completions", json=body, timeout=20)
        assert found.status_code == 200, found.text
        assert [image.data[:4] for image in live.engine.requests[-1].images] == [b"\x89PNG"] * 2
        page = httpx.post(
            f"{live.url}/v1/chat/completions",
            json={"messages": messages(f"http://{host.name}/page")},
            timeout=20,
        )
        assert (page.status_code, page.json()["error"]["param"]) == (400, "messages.0")
    assert [path for path, _ in host.asked] == ["/a.png", "/b.png", "/page"]
    assert not {"cookie", "authorization", "referer"} & set(host.asked[0][1])


def test_a_model_that_names_no_host_asks_nobody(host: Host) -> None:
    with live_server(models=[ServedModel("eyes", vision=True)]) as live:
        body = {"messages": messages(f"http://{host.name}/a.png")}
        found = httpx.post(f"{live.url}/v1/chat/completions", json=body, timeout=20)
    assert found.status_code == 400
    assert "image_hosts" in found.json()["error"]["message"]
    assert host.asked == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/moved", "says 302; redirections are not followed"),
        ("/none", "says 404"),
        ("/large", "larger than the 10485760 bytes"),
        ("/packed", "packed"),
    ],
)
def test_what_a_host_may_not_do(host: Host, path: str, text: str) -> None:
    with pytest.raises(BadRequest, match=text) as refused:
        fetch(f"http://{host.name}{path}", host.name)
    assert refused.value.param == "messages.0.content.0"
    assert len(host.asked) == 1


def test_a_slow_host_costs_its_time_and_no_more(host: Host) -> None:
    with pytest.raises(BadRequest, match=r"within 0\.3 s"):
        fetch(f"http://{host.name}/slow", host.name, seconds=0.3)


@pytest.mark.parametrize(
    "url",
    [
        "http://{host}@evil.example/a.png",
        "http://user:pass@{host}/a.png",
        "http://127.0.0.1/a.png",
        "http://localhost:{port}/a.png",
        "http://2130706433:{port}/a.png",
        "http://127.1:{port}/a.png",
        "https://{host}.evil.example/a.png",
        "http://[::ffff:127.0.0.1]:{port}/a.png",
        "http://",
        "http://127.0.0.1:99999/a.png",
        "http://[::1/a.png",
    ],
)
def test_only_the_very_name_counts(host: Host, url: str) -> None:
    with pytest.raises(BadRequest, match="can not be fetched"):
        fetch(url.format(host=host.name, port=host.server_port), host.name)
    assert host.asked == []


def test_a_public_name_is_asked_by_https_alone() -> None:
    with pytest.raises(BadRequest, match="only https"):
        fetch("http://images.example.com/a.png", "images.example.com")


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.5", "169.254.169.254", "::1", "::ffff:10.0.0.1"])
def test_a_public_name_with_a_private_address_is_not_connected_to(
    host: Host, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when whoever owns the name changes its mind between two questions."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    at = (address, host.server_port, 0, 0) if ":" in address else (address, host.server_port)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(family, socket.SOCK_STREAM, 6, "", at)])
    name = f"images.example.com:{host.server_port}"
    with pytest.raises(BadRequest, match="can not be asked"):
        fetch(f"https://{name}/a.png", name)
    assert host.asked == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("10.1.2.3", False),
        ("172.17.0.1", False), ("192.168.1.1", False), ("169.254.169.254", False), ("100.64.0.1", False),
        ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False), ("::1", False), ("::", False),
        ("fe80::1", False), ("fd00::1", False), ("ff02::1", False), ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True), ("64:ff9b::a00:1", False), ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("localhost", True), ("minio", True), ("files.internal", True), ("nas.lan", True), ("10.0.0.5", True),
        ("127.0.0.1", True), ("example.com", False), ("8.8.8.8", False), ("internal.example.com", False),
    ],
)  # fmt: skip
def test_which_names_can_only_be_local(name: str, local: bool) -> None:
    assert is_local_name(name) is local
