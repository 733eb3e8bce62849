"""A Docker Engine on a unix socket: the few routes that the watchdog calls, and every way to be wrong.

Run by itself it serves one container whose nvidia-smi says what a file says:

    python -m tests.fakes.docker_daemon /tmp/docker.sock /tmp/used_mib
"""

from __future__ import annotations

import json
import re
import socket
import socketserver
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

LABELS = {"com.docker.compose.service": "llm-sidecar", "com.docker.compose.project": "llm-sidecar"}
UUID = "GPU-5c07b4ff-0000-1111-2222-333333333333"
OUT, ERR = 1, 2


def csv(used: float, total: float = 24576, uuid: str = UUID) -> bytes:
    """One row, as nvidia-smi prints it."""
    return f"{uuid}, {used:.0f}, {total:.0f}\n".encode()


@dataclass
class Answer:
    """What a command in the container prints and how it ends. `status` None: it never does."""

    output: bytes = b""
    status: int | None = 0
    stream: int = OUT
    raw: bytes | None = None
    refusal: tuple[int, str] | None = None
    trickle_s: float = 0.0
    held_s: float = 0.0


@dataclass
class FakeDocker:
    """One engine. `faults` maps a route (`list`, `top`, `exec`, `start`, `inspect`, `restart`) to what is
    wrong with it: a status, or `close`, `cut`, `garbage`, `hang`, `shape`."""

    smi: Callable[[list[str]], Answer] = field(default=lambda _: Answer(csv(9000)))
    name: str = "llm-sidecar"
    state: str = "running"
    status: str = "Up 3 minutes (healthy)"
    boot: int = 1
    containers: list[dict[str, Any]] | None = None
    faults: dict[str, int | str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    restart_takes_s: float = 0.0
    # What a restart does to a process that plays the container.
    restart: Callable[[], None] = field(default=lambda: None)
    restart_is_effective: bool = True
    calls: list[tuple[str, str]] = field(default_factory=list)
    hanging: threading.Event = field(default_factory=threading.Event)
    execs: dict[str, tuple[list[str], Answer]] = field(default_factory=dict)

    def entry(self) -> dict[str, Any]:
        """The container as the list shows it."""
        return {
            "Id": "c" * 64,
            "Names": [f"/{self.name}"],
            "State": self.state,
            "Status": self.status,
            "Labels": dict(LABELS),
        }

    def pids(self) -> list[list[str]]:
        """Rows of `ps -ef`: the first process, whose parent is the shim, and a worker."""
        root = 1000 * self.boot
        return [
            ["10001", str(root), "77", "0", "11:00", "?", "00:00:01", "/sbin/docker-init"],
            ["10001", str(root + 1), str(root), "0", "11:00", "?", "00:00:09", "python server.py"],
        ]

    def called(self, route: str) -> int:
        """How often."""
        return sum(route in path for _, path in self.calls)

    def restarts(self) -> int:
        """How many calls of the one act."""
        return self.called("/restart")


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: str, docker: FakeDocker) -> None:
        self.docker = docker
        self.connections: set[socket.socket] = set()
        super().__init__(path, _Routes)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remembers the connection, so that the engine's end is the end of it too."""
        self.connections.add(request)
        super().process_request(request, client_address)

    def die(self) -> None:
        """As a killed daemon does: every connection ends at once."""
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are part of the game."""


class _Routes(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._route("GET")

    def do_POST(self) -> None:
        self._route("POST")

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _route(self, method: str) -> None:
        docker, url = self.server.docker, urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}") if length else {}
        docker.calls.append((method, self.path))
        path = re.sub(r"^/v1\.\d+", "", url.path)
        routes: list[tuple[str, str, Callable[..., None]]] = [
            ("list", r"/containers/json", self._list),
            ("top", r"/containers/([^/]+)/top", self._top),
            ("restart", r"/containers/([^/]+)/restart", self._restart),
            ("exec", r"/containers/([^/]+)/exec", self._exec),
            ("start", r"/exec/([^/]+)/start", self._start),
            ("inspect", r"/exec/([^/]+)/json", self._inspect),
        ]
        for name, pattern, work in routes:
            if (found := re.fullmatch(pattern, path)) is not None:
                if not self._faulty(name):
                    work(*found.groups(), query=parse_qs(url.query), body=body)
                return
        self._say(404, {"message": "page not found"})

    def _faulty(self, route: str) -> bool:
        fault = self.server.docker.faults.get(route)
        if fault is None:
            return False
        if isinstance(fault, int):
            self._say(fault, {"message": self.server.docker.messages.get(route, f"fault {fault}")})
        elif fault == "hang":
            self.server.docker.hanging.wait(60)
        elif fault == "garbage":
            self._raw(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n<html>hello>")
        elif fault == "shape":
            self._say(200, [{"no": "such keys"}] if route == "list" else {"Titles": 7})
        elif fault == "cut":
            self._raw(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n[{"Id": "c')
        self.close_connection = True
        return True

    def _list(self, query: dict[str, list[str]], **_: Any) -> None:
        docker = self.server.docker
        wanted = json.loads(query.get("filters", ["{}"])[0]).get("label", [])
        found = [docker.entry()] if docker.containers is None else docker.containers
        labels = [{f"{k}={v}" for k, v in (entry.get("Labels") or {}).items()} for entry in found]
        self._say(200, [e for e, have in zip(found, labels, strict=True) if set(wanted) <= have])

    def _top(self, name: str, **_: Any) -> None:
        docker = self.server.docker
        if name != docker.name:
            self._say(404, {"message": f"No such container: {name}"})
            return
        titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
        self._say(200, {"Titles": titles, "Processes": docker.pids()})

    def _restart(self, name: str, **_: Any) -> None:
        docker = self.server.docker
        if name != docker.name:
            self._say(404, {"message": f"No such container: {name}"})
            return
        time.sleep(docker.restart_takes_s)
        docker.restart()
        if docker.restart_is_effective:
            docker.boot += 1
            docker.state, docker.status = "running", "Up Less than a second (healthy)"
            docker.execs.clear()
        self._raw(b"HTTP/1.1 204 No Content\r\n\r\n")

    def _exec(self, name: str, body: dict[str, Any], **_: Any) -> None:
        docker = self.server.docker
        exec_id = f"e{len(docker.calls)}"
        docker.execs[exec_id] = (body["Cmd"], docker.smi(body["Cmd"]))
        self._say(201, {"Id": exec_id})

    def _start(self, exec_id: str, **_: Any) -> None:
        _, answer = self.server.docker.execs[exec_id]
        if answer.refusal is not None:
            self._say(answer.refusal[0], {"message": answer.refusal[1]})
            return
        self._raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n")
        frame = struct.pack(">BxxxL", answer.stream, len(answer.output)) + answer.output
        stream = frame if answer.raw is None else answer.raw
        if answer.trickle_s:
            for byte in stream:
                self._raw(bytes([byte]))
                time.sleep(answer.trickle_s)
        else:
            self._raw(stream)
        if answer.status is None:
            self.server.docker.hanging.wait(60)
        time.sleep(answer.held_s)
        self.close_connection = True

    def _inspect(self, exec_id: str, **_: Any) -> None:
        found = self.server.docker.execs.get(exec_id)
        if found is None:
            self._say(404, {"message": f"No such exec instance: {exec_id}"})
            return
        status = found[1].status
        self._say(200, {"Running": status is None, "ExitCode": status})

    def _say(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        self._raw(head.encode() + text)

    def _raw(self, data: bytes) -> None:
        with suppress(OSError):
            self.wfile.write(data)
            self.wfile.flush()


@contextmanager
def serving(docker: FakeDocker, path: Path) -> Iterator[FakeDocker]:
    """Serve on the socket until the block ends; whatever hangs is let go then."""
    server = _Server(str(path), docker)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield docker
    finally:
        docker.hanging.set()
        server.die()
        path.unlink(missing_ok=True)


def main() -> None:
    """One container, whose memory is what the file says now."""
    path, used = Path(sys.argv[1]), Path(sys.argv[2])
    with serving(FakeDocker(smi=lambda _: Answer(csv(float(used.read_text())))), path):
        threading.Event().wait()


if __name__ == "__main__":
    main()
