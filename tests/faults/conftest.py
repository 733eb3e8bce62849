"""Servers whose engine may be killed: the product's own program over the echoing worker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.e2e.program import Program, program, until

Serving = Callable[..., AbstractContextManager[Program]]
ENTRY = ("-m", "tests.faults.served")


@contextlib.contextmanager
def echoing(folder: Path, *flags: str, **environ: str) -> Iterator[Program]:
    """Ready; it logs JSON and has echoed its first question."""
    environ = {"LOG_FORMAT": "json", **environ}
    with program(folder, *flags, entry=ENTRY, **environ) as running:
        until(lambda: '"message": "ready"' in running.printed(), "ready", 20)
        yield running


@pytest.fixture
def serving(tmp_path: Path) -> Serving:
    """Starts one with settings of its own."""

    def start(*flags: str, **environ: str) -> AbstractContextManager[Program]:
        return echoing(tmp_path, *flags, **environ)

    return start


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One for all tests of a module that leave it as it was."""
    with echoing(tmp_path_factory.mktemp("echo")) as running:
        yield running
