"""Something that may hang, asked on a thread that nobody waits for longer than a deadline."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from sidecar.doctor.facts import Unknown
from sidecar.errors import StartError

Found = TypeVar("Found")


class Asked(Generic[Found]):
    """A look that has begun. Several of them wait beside each other, not one after the other."""

    def __init__(self, what: str, deadline_s: float, look: Callable[[], Found]) -> None:
        self._what, self._deadline_s = what, deadline_s
        self._until = time.monotonic() + deadline_s
        self._answer: queue.SimpleQueue[Found | Unknown] = queue.SimpleQueue()
        # A daemon: what hangs must not keep the program from ending.
        threading.Thread(target=self._run, args=(look,), name=f"look at {what}", daemon=True).start()

    def answer(self) -> Found | Unknown:
        """What was found; Unknown for what raised, or did not answer in time. Asked for once."""
        try:
            return self._answer.get(timeout=max(self._until - time.monotonic(), 0.0))
        except queue.Empty:
            return Unknown(f"{self._what} did not answer within {self._deadline_s:g} s")

    def _run(self, look: Callable[[], Found]) -> None:
        try:
            self._answer.put(look())
        except StartError as error:
            self._answer.put(Unknown(error.message))
        except Exception as error:  # whatever it is, it is a finding, and the other looks go on
            self._answer.put(Unknown(f"{self._what}: {type(error).__name__}: {error}"))
