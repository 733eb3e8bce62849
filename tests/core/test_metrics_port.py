"""METRICS_PORT has the metrics, for every kind of scraper under the same names, and nothing else."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from sidecar.errors import PortInUse
from sidecar.generation import Usage
from sidecar.metrics import Metrics
from sidecar.metrics_port import CONNECTIONS_MAX, metrics_port

# What Prometheus 2 and 3 send.
OLD = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain"
)
NEW = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;q=0.5"


@pytest.fixture
def port() -> Iterator[int]:
    metrics = Metrics(CollectorRegistry())
    metrics.ended(metrics.arrived("m", 0.0), "success", 1.0, Usage(1, 1))
    with metrics_port("127.0.0.1", 0, metrics) as found:
        assert found is not None
        yield found


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("accept", [OLD, NEW, "*/*"])
def test_the_names_are_the_same_for_everybody(port: int, accept: str) -> None:
    status, text = ask(port, "/metrics", accept=accept)
    assert status == 200
    assert 'vllm:generation_tokens_total{engine="0",model_name="m"} 1.0' in text


def test_there_is_nothing_else(port: int) -> None:
    for path in ("/", "/health", "/v1/models", "/events", "/metricsx", "/metrics/../health"):
        assert ask(port, path)[0] == 404
    assert ask(port, "/metrics", "POST")[0] == 501
    assert ask(port, "/metrics/", "HEAD") == (200, "")


def test_those_who_hold_every_place_give_them_back(port: int) -> None:
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS_MAX + 2)]
    for one in idle:
        one.close()
    while True:  # the places come free as their threads notice
        try:
            assert ask(port, "/metrics")[0] == 200
            break
        except (ConnectionError, http.client.HTTPException):
            continue


def test_a_taken_port_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        serving = metrics_port("127.0.0.1", number, Metrics(CollectorRegistry()))
        with pytest.raises(PortInUse, match=f"METRICS_PORT={number}"), serving:
            pass


def test_none_is_none() -> None:
    with metrics_port("127.0.0.1", None, Metrics(CollectorRegistry())) as found:
        assert found is None
