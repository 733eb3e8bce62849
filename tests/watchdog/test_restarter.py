"""The one act, against an engine that does it, refuses it, or leaves everybody guessing."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.watchdog.conftest import Live, eventually
from watchdog.engine import Engine
from watchdog.observation import Container
from watchdog.restarter import Done, Outcome, Refused, Restarter, Unsure

CONTAINER = Container("c" * 64, "llm-sidecar", "running")


def restart(live: Live, timeout_s: float = 45.0) -> Outcome:
    return Restarter(live.engine, timeout_s, live.stop).restart(CONTAINER)


def test_done(live: Live) -> None:
    assert restart(live) == Done()
    assert live.docker.boot == 2


@pytest.mark.parametrize(("timeout_s", "sent"), [(45.0, "t=45"), (45.2, "t=46"), (1.0, "t=1")])
def test_the_timeout_is_whole_seconds_and_never_shorter(live: Live, timeout_s: float, sent: str) -> None:
    restart(live, timeout_s)
    assert live.docker.calls[-1] == ("POST", f"/v1.44/containers/llm-sidecar/restart?{sent}")


@pytest.mark.parametrize("status", [403, 404, 409])
def test_a_no_is_a_no(live: Live, status: int) -> None:
    live.docker.faults["restart"] = status
    outcome = restart(live)
    assert isinstance(outcome, Refused)
    assert str(status) in outcome.text


@pytest.mark.parametrize("fault", [500, 502, 504, "close", "cut"])
def test_what_may_have_happened_is_unsure(live: Live, fault: int | str) -> None:
    live.docker.faults["restart"] = fault
    assert isinstance(restart(live), Unsure)
    assert live.docker.restarts() == 1  # and the SDK did not try again by itself


def test_nobody_there_is_a_no(live: Live, tmp_path: Path) -> None:
    absent = Engine(f"unix://{tmp_path}/absent.sock")
    assert isinstance(Restarter(absent, 45.0, live.stop).restart(CONTAINER), Refused)


def test_a_long_drain_is_waited_for(live: Live) -> None:
    live.docker.restart_takes_s = 5.5  # longer than an ordinary call may take
    assert restart(live, 1.0) == Done()


def test_told_to_stop_it_lets_the_daemon_finish_alone(live: Live) -> None:
    live.docker.faults["restart"] = "hang"
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(restart(live)))
    thread.start()
    eventually(lambda: live.docker.restarts() == 1)
    began_s = time.monotonic()
    live.stop.set()
    thread.join(15)
    assert time.monotonic() - began_s < 9.0
    assert isinstance(outcomes[0], Unsure)
