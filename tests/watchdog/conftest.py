"""A Docker Engine that is a fake at the socket and nowhere else: the real SDK talks to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.docker_daemon import FakeDocker, serving
from watchdog.engine import Engine


@dataclass
class Live:
    """The fake, and what the watchdog would connect to it with."""

    docker: FakeDocker
    path: Path
    host: str
    engine: Engine
    stop: threading.Event


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    """An engine that serves until the test ends."""
    path = tmp_path / "docker.sock"
    with serving(FakeDocker(), path) as docker:
        host = f"unix://{path}"
        yield Live(docker, path, host, Engine(host), threading.Event())


def eventually(true: Callable[[], object], deadline_s: float = 20.0) -> None:
    """Wait until it holds; fail when it does not in time."""
    until_s = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < until_s, "it never came true"
        time.sleep(0.01)
