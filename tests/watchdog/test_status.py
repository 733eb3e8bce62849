"""What the guard says of itself over HTTP, and to Docker's health check."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.watchdog.conftest import eventually
from tests.watchdog.test_loop import World
from tests.watchdog.timeline import GPU, OVER, UNDER, container
from watchdog.__main__ import main
from watchdog.observation import Card, Look, Unknown
from watchdog.status import CONNECTIONS_MAX, StatusServer


@dataclass
class Served:
    world: World
    port: int

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def health(self) -> tuple[int, Any]:
        status, body = self.get("/health")
        return status, json.loads(body)

    def metrics(self) -> dict[str, float]:
        """Name with labels, and value."""
        families = text_string_to_metric_families(self.get("/metrics")[1].decode())
        return {
            sample.name + "".join(f"/{value}" for value in sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
        }


@pytest.fixture
def served() -> Iterator[Served]:
    world = World()
    server = StatusServer("127.0.0.1", 0, world.tally, world.journal)
    server.start()
    yield Served(world, server.server_address[1])
    server.close()


def test_healthy_from_the_start_and_while_it_watches(served: Served) -> None:
    assert served.health()[0] == 200
    served.world.play([UNDER], 1)
    status, body = served.health()
    assert (status, body["status"], body["message"]) == (200, "watching", "under the limit")
    assert body["gpus"] == {GPU: {"used_mib": UNDER, "total_mib": 24576.0, "own_mib": None}}
    assert (body["restarts_left"], body["alerts"], body["dry_run"]) == (3, {}, False)


def test_waiting_is_healthy(served: Served) -> None:
    served.world.target = Unknown("missing", "no container of service llm-sidecar")
    served.world.play([None] * 20, 20)
    status, body = served.health()
    assert (status, body["status"]) == (200, "waiting")
    assert body["message"] == "no container of service llm-sidecar"


def test_a_stopped_container_is_waiting(served: Served) -> None:
    served.world.target = container(state="exited")
    served.world.play([None] * 20, 20)
    assert served.health()[0] == 200
    assert served.health()[1]["status"] == "waiting"


def test_blind_is_not_healthy_and_ends(served: Served) -> None:
    served.world.play([None] * 4, 4)
    assert served.health()[0] == 200
    served.world.play([None], 1)
    status, body = served.health()
    assert (status, body["status"]) == (503, "blind")
    assert "nvidia-smi hangs" in body["message"]
    served.world.play([UNDER], 1)
    assert served.health()[0] == 200


def test_an_old_look_is_not_healthy(served: Served) -> None:
    served.world.play([UNDER], 1)
    served.world.now_s = 190.0
    assert served.health()[0] == 200
    served.world.now_s = 190.1
    status, body = served.health()
    assert (status, body["status"]) == (503, "hung")


def test_a_loop_that_never_began_is_not_healthy_for_ever(served: Served) -> None:
    served.world.now_s = 200.0
    assert served.health()[1]["status"] == "hung"


def test_a_restart_under_way_is_no_hang(served: Served) -> None:
    served.world.play([UNDER], 1)
    served.world.tally.restarting = True
    served.world.now_s = 250.0
    assert served.health()[0] == 200


@pytest.mark.parametrize(
    ("looks", "kind"),
    [
        ([{GPU: Card(5000.0, 8192.0)}] * 2, "limit_above_card"),
        ([OVER] * 30, "restart_failed"),
    ],
)
def test_alerts_under_which_nobody_is_guarded(served: Served, looks: list[float | Look], kind: str) -> None:
    served.world.play(looks, min(len(looks), 20))
    status, body = served.health()
    assert (status, body["status"]) == (503, kind)


def test_two_containers_guard_nobody(served: Served) -> None:
    served.world.target = Unknown("ambiguous", "2 containers: a, b")
    served.world.play([None], 1)
    assert served.health()[0] == 503


def test_foreign_memory_is_told_and_healthy(served: Served) -> None:
    served.world.play([{GPU: Card(12000.0, 24576.0, 6500.0, "the driver")}] * 4, 4)
    status, body = served.health()
    assert (status, list(body["alerts"])) == (200, ["foreign_vram"])


def test_metrics(served: Served) -> None:
    served.world.play([OVER, None, OVER, OVER, OVER], 4)
    found = served.metrics()
    assert found["watchdog_restarts_total/over_limit"] == 1
    assert found["watchdog_restart_calls_total/done"] == 1
    assert found["watchdog_restart_budget_left"] == 2
    assert found["watchdog_readings_total/known"] == 3
    assert found["watchdog_readings_total/probe_hung"] == 1
    assert found[f"watchdog_vram_used_mib/{GPU}"] == OVER
    assert found[f"watchdog_vram_total_mib/{GPU}"] == 24576
    assert found["watchdog_vram_limit_mib"] == 10752
    assert found["watchdog_blind_seconds_total"] == 60
    assert found["watchdog_last_success_timestamp_seconds"] == 1e9 + 180
    assert found["watchdog_dry_run"] == 0
    assert found["watchdog_healthy"] == 1
    assert found["watchdog_ticks_total"] == 4


def test_no_reading_is_no_number(served: Served) -> None:
    served.world.play([UNDER, None], 2)
    assert not any(name.startswith("watchdog_vram_used") for name in served.metrics())


def test_a_spent_budget_is_in_the_metrics(served: Served) -> None:
    served.world.on_restart = lambda: setattr(
        served.world, "target", container(len(served.world.restarted) + 1)
    )
    served.world.play([OVER] * 100, 40)
    found = served.metrics()
    assert found["watchdog_restart_budget_left"] == 0
    assert 0 < found["watchdog_next_restart_seconds"] <= 21600
    assert found["watchdog_alert/budget_spent"] == 1
    assert served.health()[0] == 200


def test_events(served: Served) -> None:
    served.world.play([10780.0, 10791.0, 10803.0, 10803.0], 3)
    status, body = served.get("/events?x=1")
    assert status == 200
    assert json.loads(body)[0]["sentence"] == "restarted 03:12: 10780, 10791, 10803 MiB > 10752"


def test_the_events_are_bounded(served: Served) -> None:
    for number in range(1000):
        served.world.journal.record("alert", str(number))
    assert len(json.loads(served.get("/events")[1])) == 200


def test_nothing_else(served: Served) -> None:
    assert served.get("/")[0] == 404
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    connection.request("POST", "/health")
    assert connection.getresponse().status == 501
    connection.close()


def test_idle_connections_do_not_keep_it_from_answering(served: Served) -> None:
    idle = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(CONNECTIONS_MAX - 1)]
    assert served.health()[0] == 200
    more = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(20)]
    for connection in more:
        connection.settimeout(10)
    assert any(connection.recv(1) == b"" for connection in more[-1:])  # closed, not kept
    for connection in [*idle, *more]:
        connection.close()
    eventually(lambda: _answers(served))


def _answers(served: Served) -> bool:
    try:
        return served.health()[0] == 200
    except OSError:
        return False


def test_the_health_check_of_the_container(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"WATCHDOG_STATUS_PORT": str(served.port), "WATCHDOG_STATUS_ADDRESS": "0.0.0.0"}
    served.world.play([UNDER], 1)
    assert main(["--health"], environ) == 0
    assert capsys.readouterr().out == "watching: under the limit\n"
    served.world.play([None] * 5, 5)
    assert main(["--health"], environ) == 1
    assert capsys.readouterr().out.startswith("blind: no reading for 5 looks")


def test_the_health_check_without_a_watchdog(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    assert main(["--health"], {"WATCHDOG_STATUS_PORT": str(port)}) == 1
    assert "no watchdog answers" in capsys.readouterr().err


@pytest.mark.parametrize("told", [b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"\r\n\r\n"])
def test_what_is_no_http_does_no_harm(served: Served, told: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        connection.sendall(told)
        connection.recv(100)
    assert served.health()[0] == 200
