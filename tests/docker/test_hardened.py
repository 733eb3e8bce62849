"""The hardened overlay: what the watchdog may ask of Docker, tried from inside the watchdog."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.docker.stack import SIDECAR, Stack, docker, stack, until

PROXY = "docker/compose.hardened.yaml"
# A raw request over the watchdog's socket; prints the status.
ASK = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(100); s.connect("/run/docker-proxy/docker.sock")
s.sendall((sys.argv[1] + " " + sys.argv[2] + " HTTP/1.1\\r\\nHost: docker\\r\\nConnection: close\\r\\n"
           "Content-Type: application/json\\r\\nContent-Length: 2\\r\\n\\r\\n{}").encode())
print(s.makefile("rb").readline().split()[1].decode())
"""


@pytest.fixture(scope="module")
def hardened(images: None, free_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("hardened") / "stack", free_port, PROXY) as up:
        until(lambda: status(up, "GET", "/v1.41/containers/json") == 200, "the proxy answers")
        yield up


def status(project: Stack, method: str, path: str) -> int:
    told = project.compose("exec", "-T", "vram-watchdog", "python3", "-c", ASK, method, path, check=False)
    return int(told.strip()) if told.strip().isdigit() else 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1.41/containers/json?all=1"),
        ("GET", "/containers/json"),
        ("GET", f"/v1.41/containers/{SIDECAR}/top"),
    ],
)
def test_what_it_needs_passes(hardened: Stack, method: str, path: str) -> None:
    assert status(hardened, method, path) == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/v1.41/containers/{SIDECAR}/exec"),
        ("POST", "/v1.41/containers/create"),
        ("POST", f"/v1.41/containers/{SIDECAR}/kill"),
        ("POST", f"/v1.41/containers/{SIDECAR}/stop"),
        ("GET", f"/v1.41/containers/{SIDECAR}/json"),
        ("POST", "/v1.41/containers/other/restart"),
        ("POST", f"/v1.41/containers/{SIDECAR}x/restart"),
        ("POST", f"/v1.41/containers/{SIDECAR}/restart/../kill"),
        ("POST", f"/v1.41/containers/other/../{SIDECAR}/restart"),
        ("POST", f"/v1.41/containers/%6c{SIDECAR[1:]}/restart"),
        ("POST", f"//v1.41/containers/{SIDECAR}/restart"),
        ("GET", f"/v1.41/containers/{SIDECAR}/restart"),
        ("post", f"/v1.41/containers/{SIDECAR}/restart"),
        ("DELETE", f"/v1.41/containers/{SIDECAR}"),
        ("POST", "/v1.41/containers/json"),
        ("GET", "/v1.41/images/json"),
        ("GET", "/version"),
        ("GET", "/"),
    ],
)
def test_everything_else_is_refused(hardened: Stack, method: str, path: str) -> None:
    before = hardened.started_at()
    assert status(hardened, method, path) in (400, 403, 405)
    assert hardened.started_at() == before


def test_it_may_restart_this_one(hardened: Stack) -> None:
    before = hardened.started_at()
    assert status(hardened, "POST", f"/v1.41/containers/{SIDECAR}/restart?t=45") == 204
    assert hardened.started_at() != before
    until(hardened.ready, "ready again")


def test_the_watchdog_has_no_socket_no_rights_and_no_way_out(hardened: Stack) -> None:
    name = hardened.compose("ps", "-q", "vram-watchdog").strip()
    told = json.loads(docker("inspect", name))[0]
    assert not [mount for mount in told["Mounts"] if mount["Source"].endswith("docker.sock")]
    assert (told["Config"]["User"], told["HostConfig"]["CapDrop"]) == ("10002:10002", ["ALL"])
    network = json.loads(docker("network", "inspect", *told["NetworkSettings"]["Networks"]))[0]
    assert network["Internal"]


def test_the_watchdog_is_healthy_here_too(hardened: Stack) -> None:
    asked = ("exec", "-T", "vram-watchdog", "python3", "-m", "watchdog", "--health")
    until(lambda: "nothing to watch" in hardened.compose(*asked), "it knows that there is no card")
