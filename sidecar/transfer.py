"""One file over the line: it goes on after a cut, and one process at a time fetches it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
# Seconds between tries that bring nothing new; every byte that comes starts the series anew.
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
LOCK_POLL_S = 0.25
# Answers that another try may change.
PASSING = (408, 429, 500, 502, 503, 504)


class CutShort(OSError):
    """The line ended before the file did."""


def receive(
    url: str,
    part: Path,
    size_bytes: int,
    on_bytes: Callable[[int], None],
    pauses_s: Sequence[float] = PAUSES_S,
) -> None:
    """Fill `part` up to that size, from where it ends now.

    `on_bytes` hears what was written, and a negative number when it is begun anew. Raises what the
    hub's client or the file system raised last, when the pauses are used up.
    """
    best = 0

    def attempt() -> None:
        have = stored_bytes(part)
        if have < size_bytes:
            _stream(url, part, have, on_bytes)
        if (now := stored_bytes(part)) < size_bytes:
            raise CutShort(f"{now} of {size_bytes} bytes came")

    def progressed() -> bool:
        nonlocal best
        before, best = best, max(best, stored_bytes(part))
        return best > before

    progressed()
    patiently(attempt, pauses_s, progressed)


def patiently(call: Callable[[], T], pauses_s: Sequence[float], progressed: Callable[[], bool]) -> T:
    """What the call returns; after a passing failure it is made again, after the next pause."""
    left = list(pauses_s)
    while True:
        try:
            return call()
        except Exception as error:
            if not is_passing(error):
                raise
            if progressed():
                left = list(pauses_s)
            if not left:
                raise
            log.warning("%s; trying again in %g s", in_short(error), left[0])
            time.sleep(left.pop(0))


def is_passing(error: Exception) -> bool:
    """Whether another try may succeed: a cut or silent line, or a server that is busy."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in PASSING
    return isinstance(error, (httpx2.TransportError, CutShort))


@contextlib.contextmanager
def alone(lock: Path, while_waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock; while another process has it, `while_waiting` is called again and again.

    The lock ends with its process, however that ends. Where the file system knows no locks, it is
    gone without: then two processes may fetch the same file, and its sum decides.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    while (held := _locked(lock)) is None:
        while_waiting()
        time.sleep(LOCK_POLL_S)
    try:
        yield
    finally:
        os.close(held)


def _locked(lock: Path) -> int | None:
    """The open lock file, or None while another has it."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o664)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Somebody who had it may have removed the file that we opened.
        current = os.stat(lock).st_ino == os.fstat(handle).st_ino
    except (BlockingIOError, FileNotFoundError):
        current = False
    except OSError as error:
        log.warning("%s can not be locked (%s); fetching without a lock", lock, error.strerror)
        current = True
    if current:
        return handle
    os.close(handle)
    return None


def stored_bytes(path: Path) -> int:
    """The size of the file; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _stream(url: str, part: Path, have: int, on_bytes: Callable[[int], None]) -> None:
    from huggingface_hub import constants, get_session, get_token, hf_raise_for_status

    # Compressed bytes could not be counted, nor gone on from.
    headers = {"Accept-Encoding": "identity"}
    if token := get_token():
        headers["Authorization"] = f"Bearer {token}"  # not sent on to where the hub stores its files
    if have:
        headers["Range"] = f"bytes={have}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout) as answer:
        hf_raise_for_status(answer)
        goes_on = answer.status_code == 206
        if have and not goes_on:
            on_bytes(-have)
        with part.open("ab" if goes_on else "wb") as sink:
            for chunk in answer.iter_bytes():
                sink.write(chunk)
                on_bytes(len(chunk))
            sink.flush()
            os.fsync(sink.fileno())


def in_short(error: Exception) -> str:
    """The error's class and what it says, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
