"""Which container, which boot: through the real SDK, from an engine that is wrong in every way."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.docker_daemon import LABELS, serving
from tests.watchdog.conftest import Live
from watchdog.container import find, uptime_s
from watchdog.engine import Engine
from watchdog.observation import Container, Target, Unknown


def found(live: Live) -> Target:
    return find(live.engine, "llm-sidecar", "llm-sidecar")


def cause(target: Target) -> str:
    assert isinstance(target, Unknown), target
    return target.cause


def test_the_one_container(live: Live) -> None:
    target = found(live)
    assert target == Container(
        "c" * 64, "llm-sidecar", "running", "healthy", 180.0, 1000, frozenset({1000, 1001})
    )


def test_only_what_a_hardened_proxy_lets_through(live: Live) -> None:
    found(live)
    paths = {(method, path.partition("?")[0]) for method, path in live.docker.calls}
    assert paths == {
        ("GET", "/v1.44/containers/json"),
        ("GET", "/v1.44/containers/llm-sidecar/top"),
    }


def test_none_and_two(live: Live) -> None:
    live.docker.containers = []
    assert cause(found(live)) == "missing"
    two = [live.docker.entry(), live.docker.entry() | {"Id": "d", "Names": ["/other"], "State": "exited"}]
    live.docker.containers = two
    target = found(live)
    assert isinstance(target, Unknown)
    assert (target.cause, "llm-sidecar, other" in target.text) == ("ambiguous", True)


def test_renamed_is_still_the_one_and_another_project_is_not(live: Live) -> None:
    live.docker.name = "renamed"
    target = found(live)
    assert isinstance(target, Container)
    assert (target.name, target.root_pid) == ("renamed", 1000)
    other = live.docker.entry()
    other["Labels"]["com.docker.compose.project"] = "other"
    live.docker.containers = [other]
    assert cause(found(live)) == "missing"


def test_a_one_off_command_of_compose_is_not_the_service(live: Live) -> None:
    once = live.docker.entry()
    once["Labels"]["com.docker.compose.oneoff"] = "True"
    live.docker.containers = [live.docker.entry(), once]
    assert isinstance(found(live), Container)


@pytest.mark.parametrize("state", ["created", "exited", "dead", "restarting", "removing", "paused"])
def test_every_state_comes_through(live: Live, state: str) -> None:
    live.docker.state = state
    target = found(live)
    assert isinstance(target, Container)
    assert (target.state, target.root_pid) == (state, None)
    assert live.docker.called("/top") == 0


@pytest.mark.parametrize("fault", [404, 409, 500, "close", "garbage", "shape", "cut"])
def test_without_top_there_is_still_a_container(live: Live, fault: int | str) -> None:
    live.docker.faults["top"] = fault
    target = found(live)
    assert isinstance(target, Container)
    assert (target.root_pid, target.pids) == (None, frozenset())


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (403, "docker_forbidden"),
        (404, "container_not_found"),
        (500, "docker_error"),
        (503, "docker_error"),
        ("close", "docker_broke_off"),
        ("cut", "docker_broke_off"),
        ("garbage", "docker_garbage"),
        ("shape", "docker_garbage"),
    ],
)
def test_every_way_the_list_fails_has_a_name_and_passes(live: Live, fault: int | str, expected: str) -> None:
    for _ in range(3):
        live.docker.faults["list"] = fault
        assert cause(found(live)) == expected
        live.docker.faults.clear()
        assert isinstance(found(live), Container)


def test_a_socket_that_is_not_there(live: Live) -> None:
    absent = Engine(f"unix://{live.path}.absent")
    assert cause(find(absent, "a", "a")) == "docker_unreachable"


def test_nobody_listens(live: Live, tmp_path: Path) -> None:
    path = tmp_path / "gone.sock"
    with serving(live.docker, path):
        kept = tmp_path / "kept.sock"
        shutil.move(path, kept)
    assert cause(find(Engine(f"unix://{kept}"), "a", "a")) == "docker_unreachable"


def test_an_engine_that_restarts_is_found_again(live: Live, tmp_path: Path) -> None:
    path = tmp_path / "again.sock"
    engine = Engine(f"unix://{path}")
    for _ in range(3):
        assert cause(find(engine, "llm-sidecar", "llm-sidecar")) == "docker_unreachable"
        with serving(live.docker, path):
            assert isinstance(find(engine, "llm-sidecar", "llm-sidecar"), Container)


@pytest.mark.parametrize(
    ("message", "version"),
    [
        ("client version 1.44 is too new. Maximum supported API version is 1.41", "v1.41"),
        ("client version 1.44 is too old. Minimum supported API version is 1.52, upgrade", "v1.52"),
    ],
)
def test_an_engine_of_another_age_says_what_it_speaks(live: Live, message: str, version: str) -> None:
    live.docker.faults["list"], live.docker.messages["list"] = 400, message
    assert cause(found(live)) == "docker_error"
    live.docker.faults.clear()
    assert isinstance(found(live), Container)
    assert version in live.docker.calls[-1][1]


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"Id": "x", "Names": [], "State": "running", "Labels": LABELS},
        {"Id": "x", "Names": None, "State": "running", "Labels": LABELS},
        {"Id": "x", "Names": ["/a"], "Labels": LABELS},
    ],
)
def test_an_entry_without_the_needful_is_garbage(live: Live, entry: dict[str, Any]) -> None:
    live.docker.containers = [entry | {"Labels": LABELS}]
    assert cause(found(live)) == "docker_garbage"


@pytest.mark.parametrize(
    ("status", "seconds"),
    [
        ("Up Less than a second", 0.0),
        ("Up 1 second", 1.0),
        ("Up 59 seconds (health: starting)", 59.0),
        ("Up About a minute", 60.0),
        ("Up 3 minutes (healthy)", 180.0),
        ("Up About an hour", 3600.0),
        ("Up 2 hours (Paused)", 7200.0),
        ("Up 3 days", 259200.0),
        ("Up 2 weeks (unhealthy)", 1209600.0),
        ("Up 5 months", 12960000.0),
        ("Up 2 years", 63072000.0),
        ("Exited (0) 3 minutes ago", None),
        ("Restarting (1) 3 seconds ago", None),
        ("", None),
    ],
)
def test_uptime(status: str, seconds: float | None) -> None:
    assert uptime_s(status) == seconds


@pytest.mark.parametrize(
    ("status", "health"),
    [
        ("Up 3 minutes", ""),
        ("Up 3 minutes (healthy)", "healthy"),
        ("Up 3 minutes (unhealthy)", "unhealthy"),
        ("Up 3 seconds (health: starting)", "starting"),
    ],
)
def test_health(live: Live, status: str, health: str) -> None:
    live.docker.status = status
    target = found(live)
    assert isinstance(target, Container)
    assert target.health == health
