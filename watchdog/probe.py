"""One blocking call at a time, on a thread of its own, and never waited for beyond a deadline.

A driver call in uninterruptible sleep can not be killed, only not waited for. `subprocess.run` with
a timeout kills and then waits without one; here nobody waits. While a call is out, nothing else is
started: a hung nvidia-smi each minute would pile up until the host has no process ids left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from watchdog.observation import Unknown

T = TypeVar("T")
# How often a waiting call looks whether the program has been told to stop.
_GLANCE_S = 0.1


@dataclass
class _Call(Generic[T]):
    done: threading.Event = field(default_factory=threading.Event)
    result: list[T | Unknown] = field(default_factory=list)


class Probe:
    """Runs what may hang. After `stop` is set, a call is waited for `patience_s` more and no longer."""

    def __init__(self, name: str, stop: threading.Event, patience_s: float = 0.0) -> None:
        self._name = name
        self._stop = stop
        self._patience_s = patience_s
        self._out: _Call[object] | None = None

    @property
    def busy(self) -> bool:
        """Whether a call is still out that nobody waits for any more."""
        return self._out is not None and not self._out.done.is_set()

    def ask(self, work: Callable[[], T], deadline_s: float) -> T | Unknown:
        """The call's result; Unknown `probe_hung` when it is late, or when the last one still is."""
        if self.busy:
            return Unknown("probe_hung", f"the last call of {self._name} has not returned yet")
        call: _Call[T] = _Call()
        self._out = call  # type: ignore[assignment]  # only `done` is looked at
        threading.Thread(target=_run, args=(work, call), name=self._name, daemon=True).start()
        if not self._returned(call.done, deadline_s):
            return Unknown("probe_hung", f"{self._name} did not return within {deadline_s:g} s")
        return call.result[0]

    def _returned(self, done: threading.Event, deadline_s: float) -> bool:
        began_s, until_s = time.monotonic(), time.monotonic() + deadline_s
        while not done.wait(min(_GLANCE_S, max(0.0, until_s - time.monotonic()))):
            if self._stop.is_set():
                until_s = min(until_s, max(began_s, time.monotonic()) + self._patience_s)
                return done.wait(max(0.0, until_s - time.monotonic()))
            if time.monotonic() >= until_s:
                return False
        return True


def _run(work: Callable[[], T], call: _Call[T]) -> None:
    try:
        call.result.append(work())
    except Exception as error:  # whatever it was, the loop goes on without a reading
        call.result.append(Unknown("reader_fault", f"{type(error).__name__}: {error}"))
    finally:
        call.done.set()
