"""METRICS_PORT: the metrics on a port of their own, without a key, and nothing else.

Not the library's server: to a Prometheus before release 3 it sends OpenMetrics in which `vllm:` is `vllm_`.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sidecar.errors import PortInUse
from sidecar.metrics import TEXT_TYPE, Metrics

# More than this at once is nobody's monitoring.
CONNECTIONS_MAX = 8
CONNECTION_S = 5.0


@contextmanager
def metrics_port(host: str, port: int | None, metrics: Metrics) -> Iterator[int | None]:
    """Serve inside the block, on a thread; the port. None is none. Raises PortInUse."""
    if port is None:
        yield None
        return
    try:
        server = _Server(host, port, metrics)
    except OSError:
        raise PortInUse(f"METRICS_PORT={port}: somebody else listens there; choose another") from None
    thread = threading.Thread(target=server.serve_forever, name="metrics-port", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, metrics: Metrics) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.metrics = metrics
        self._places = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__((host, port), _Routes)

    def process_request(self, request: Any, client_address: Any) -> None:
        """One thread for each connection, but not without end."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Gives the place back, however the request ends."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves or dawdles is not worth a traceback."""


class _Routes(BaseHTTPRequestHandler):
    server: _Server
    timeout = CONNECTION_S
    server_version = "llm-sidecar"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0].rstrip("/") == "/metrics":
            self._answer(200, self.server.metrics.text())
        else:
            self._answer(404, b"There is /metrics here, and nothing else.\n")

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", TEXT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """A scrape every 15 s is no news."""
