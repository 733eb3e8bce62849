"""A driver that does not answer until `answers` is set, and then has no card."""

from __future__ import annotations

import threading

answers = threading.Event()


def nvmlInit() -> None:
    answers.wait()


def nvmlShutdown() -> None:
    """Always there."""


def nvmlDeviceGetCount() -> int:
    return 0
