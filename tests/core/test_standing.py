"""Where the service stands, for every state of the engine."""

from __future__ import annotations

import pytest

from sidecar.engine import Failed, Loading, Ready, ServiceState, Unloaded
from sidecar.errors import NotLoaded, NotReady
from sidecar.generation import Capacity
from sidecar.standing import phase, refusal

READY = Ready("cpu", Capacity(1, 1, 16, 16))


@pytest.mark.parametrize(
    ("state", "draining", "leaving", "word"),
    [
        (Loading("download", 0.5), False, False, "download"),
        (Loading("stop"), True, True, "stop"),
        (Unloaded(), False, False, "unloaded"),
        (Unloaded(), True, False, "unloaded"),
        (Failed("no file"), False, False, "failed"),
        (Failed("no file"), True, True, "failed"),
        (READY, False, False, "ready"),
        (READY, True, False, "draining"),
        (READY, False, True, "unloading"),
        (READY, True, True, "draining"),
    ],
)
def test_one_word(state: ServiceState, draining: bool, leaving: bool, word: str) -> None:
    assert phase(state, draining=draining, leaving=leaving) == word


@pytest.mark.parametrize(
    ("state", "leaving", "error", "words"),
    [
        (Loading("download", 0.25), False, NotReady, "(download, 25%)"),
        (Loading("restart"), False, NotReady, "(restart)"),
        (Failed("no such file"), False, NotReady, "no such file"),
        (Unloaded(), False, NotLoaded, "`m` is not loaded"),
        (READY, True, NotLoaded, "`m` is not loaded"),
        (Loading("load"), True, NotLoaded, "`m` is not loaded"),
    ],
)
def test_a_refusal_says_why(state: ServiceState, leaving: bool, error: type[Exception], words: str) -> None:
    found = refusal(state, "m", leaving=leaving)
    assert isinstance(found, error)
    assert words in str(found)


def test_a_model_that_is_ready_and_stays_refuses_nothing() -> None:
    assert refusal(READY, "m", leaving=False) is None
