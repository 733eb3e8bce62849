"""Images are built once; every module has a stack of its own, since the container's name is fixed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.stack import CPU, LOW, Stack, docker, stack, until


@pytest.fixture(scope="session")
def images() -> None:
    """Both images, from the Dockerfiles as they are."""
    files = [part for file in CPU for part in ("-f", file)]
    docker("compose", *files, "build", "llm-sidecar", "vram-watchdog", seconds=1500)


@pytest.fixture(scope="session")
def free_port() -> int:
    """A port that stays the same when a container is restarted."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def project(images: None, free_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The plain stack, up."""
    with stack(tmp_path_factory.mktemp("project") / "stack", free_port) as up:
        yield up


@pytest.fixture
def calm(project: Stack) -> Stack:
    """The stack with low readings, ready, and a watchdog that knows nothing of the test before."""
    project.readings(LOW)
    project.compose("up", "-d", "llm-sidecar")
    project.compose("restart", "-t", "5", "vram-watchdog")
    until(project.ready, "ready")
    looks = project.looks()  # the start itself looks, too
    until(lambda: project.looks() >= looks + 3, "the watchdog looks")
    return project


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first of these tests builds the images."""
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(1800))
