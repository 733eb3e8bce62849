"""/health, /metrics and /events over HTTP. Reads the tally; asks nobody, and so never hangs."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from watchdog.decision import Cause
from watchdog.journal import Journal
from watchdog.tally import Tally

# More than this at once is nobody's monitoring.
CONNECTIONS_MAX = 8
CONNECTION_S = 5.0
# What becomes of a call for a restart.
OUTCOMES = ("done", "refused", "unsure", "pretended")


class StatusServer(ThreadingHTTPServer):
    """Serves on a thread of its own until `close`. Raises OSError where the port is taken."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: str, port: int, tally: Tally, journal: Journal) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.tally = tally
        self.journal = journal
        self.registry = CollectorRegistry()
        self.registry.register(_Metrics(tally))
        self._places = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__((address, port), _Routes)

    def start(self) -> None:
        """Begin to answer."""
        threading.Thread(target=self.serve_forever, name="status", daemon=True).start()

    def close(self) -> None:
        """Stop answering and free the port."""
        self.shutdown()
        self.server_close()

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
    server: StatusServer
    timeout = CONNECTION_S
    server_version = "watchdog"
    sys_version = ""

    def do_GET(self) -> None:
        route = self.path.partition("?")[0].rstrip("/")
        if route == "/health":
            health = self.server.tally.health()
            self._answer(200 if health.ok else 503, _json(health_body(self.server.tally)))
        elif route == "/metrics":
            text = generate_latest(self.server.registry)
            self._answer(200, text, "text/plain; version=0.0.4; charset=utf-8")
        elif route == "/events":
            self._answer(200, _json(self.server.journal.entries()))
        else:
            self._answer(404, _json({"error": "there are /health, /metrics and /events"}))

    def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """A health check every 30 s is no news."""


def health_body(tally: Tally) -> dict[str, Any]:
    """The state in full, as `/health` shows it."""
    health = tally.health()
    with tally.lock:
        state, now_s = tally.state, tally.clock()
        age_s = None if tally.last_reading_s is None else round(now_s - tally.last_reading_s, 1)
        return {
            "status": health.status,
            "healthy": health.ok,
            "message": health.message,
            "alerts": dict(state.alerts),
            "limit_mib": tally.limits.limit_mib,
            "gpus": {
                gpu: {"used_mib": card.used_mib, "total_mib": card.total_mib, "own_mib": card.own_mib}
                for gpu, card in tally.cards.items()
            },
            "rung": state.stood.rung.name.lower(),
            "strikes": {gpu: len(strikes) for gpu, strikes in state.strikes.items()},
            "last_reading_age_s": age_s,
            "restarts_left": state.breaker.left(tally.limits.allowance, now_s),
            "next_restart_in_s": round(state.breaker.next_s(now_s)),
            "dry_run": tally.dry_run,
        }


def _json(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


class _Metrics(Collector):
    """Every metric name of this program."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        tally = self._tally
        healthy = tally.health().ok
        with tally.lock:
            yield from _cards(tally)
            yield from _counters(tally)
            yield from _gauges(tally, healthy)


def _cards(tally: Tally) -> Iterator[Metric]:
    """Absent, never zero, while there is no reading."""
    cards = tally.cards
    yield _gauge("watchdog_vram_used_mib", "In use on the card.", {g: c.used_mib for g, c in cards.items()})
    yield _gauge("watchdog_vram_own_mib", "The sidecar's own.", {g: c.own_mib for g, c in cards.items()})
    yield _gauge("watchdog_vram_total_mib", "The card has.", {g: c.total_mib for g, c in cards.items()})
    strikes = {gpu: float(len(tally.state.strikes.get(gpu, ()))) for gpu in cards}
    yield _gauge("watchdog_strikes", "Readings above the limit in a row.", strikes)


def _counters(tally: Tally) -> Iterator[Metric]:
    # From zero, so that Prometheus sees the first one as a rise.
    restarts = dict.fromkeys(get_args(Cause), 0) | tally.restarts
    calls = dict.fromkeys(OUTCOMES, 0) | tally.outcomes
    yield _counter("watchdog_restarts", "Restarts, by reason.", "reason", restarts)
    yield _counter("watchdog_restart_calls", "Restart calls, by outcome.", "outcome", calls)
    yield _counter("watchdog_readings", "Readings: known, or why not.", "outcome", tally.readings)
    yield CounterMetricFamily("watchdog_blind_seconds", "Without a reading.", value=tally.blind_s)
    yield CounterMetricFamily("watchdog_ticks", "Looks.", value=tally.ticks)
    yield CounterMetricFamily("watchdog_errors", "Faults of this program.", value=tally.errors)


def _gauges(tally: Tally, healthy: bool) -> Iterator[Metric]:
    state, limits, now_s = tally.state, tally.limits, tally.clock()
    values = {
        "watchdog_vram_limit_mib": ("The limit.", limits.limit_mib),
        "watchdog_restart_budget_left": (
            "Restarts that may follow now.",
            state.breaker.left(limits.allowance, now_s),
        ),
        "watchdog_next_restart_seconds": ("Until a restart is possible again.", state.breaker.next_s(now_s)),
        "watchdog_rung": ("1 from 96 % of the limit, 2 from 98 %, 3 above it.", state.stood.rung),
        "watchdog_dry_run": ("1 when nothing is restarted.", tally.dry_run),
        "watchdog_healthy": ("What /health says.", healthy),
    }
    if tally.last_reading_wall_s is not None:
        values["watchdog_last_success_timestamp_seconds"] = ("The last reading.", tally.last_reading_wall_s)
    for name, (text, value) in values.items():
        yield GaugeMetricFamily(name, text, value=float(value))
    alerts = GaugeMetricFamily("watchdog_alert", "Alerts that stand.", labels=["kind"])
    for kind in state.alerts:
        alerts.add_metric([kind], 1.0)
    yield alerts


def _gauge(name: str, text: str, values: Mapping[str, float | None]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["gpu"])
    for gpu, value in values.items():
        if value is not None:
            family.add_metric([gpu], value)
    return family


def _counter(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family
