"""What may hang is waited for until the deadline, and not a second one beside it."""

from __future__ import annotations

import threading
import time

from tests.watchdog.conftest import eventually
from watchdog.observation import Unknown
from watchdog.probe import Probe


def test_the_result() -> None:
    assert Probe("x", threading.Event()).ask(lambda: 7, 5.0) == 7


def test_an_exception_is_a_value() -> None:
    def fails() -> int:
        raise OSError("no")

    assert Probe("x", threading.Event()).ask(fails, 5.0) == Unknown("reader_fault", "OSError: no")


def test_one_at_a_time_until_it_returns() -> None:
    probe, release, calls = Probe("x", threading.Event()), threading.Event(), []

    def hangs() -> int:
        calls.append(1)
        release.wait(30)
        return 7

    for _ in range(5):
        found = probe.ask(hangs, 0.05)
        assert isinstance(found, Unknown)
        assert found.cause == "probe_hung"
    assert len(calls) == 1
    assert probe.busy
    release.set()
    eventually(lambda: not probe.busy)
    assert probe.ask(lambda: 8, 5.0) == 8  # and the late answer of the first is not this one's


def test_told_to_stop_it_waits_no_longer_than_its_patience() -> None:
    stop, release = threading.Event(), threading.Event()
    stop.set()
    began_s = time.monotonic()
    found = Probe("x", stop, patience_s=0.2).ask(lambda: release.wait(30), 20.0)
    assert isinstance(found, Unknown)
    assert time.monotonic() - began_s < 2.0
    release.set()
