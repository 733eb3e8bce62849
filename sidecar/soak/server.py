"""The sidecar that is driven: one of our own, started for it, or one that runs already."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from sidecar.engines.llama_boot import LEASH
from sidecar.errors import NothingToSoak
from sidecar.listening import url_of

HOST = "127.0.0.1"
STOP_SECONDS = 60.0
# Ours is for nobody else: what another sidecar of this environment has taken, it must not want. And no load
# of ours is answered, and charged for, elsewhere.
OWN = {"METRICS_PORT": "", "CONTROL_SOCKET": "", "PUBLISH_ADDRESS": "", "PUBLISH_PORT": "", "FALLBACK": ""}


@dataclass(frozen=True, slots=True)
class Server:
    """Where it listens. `pid` is its process where that is known; `check` raises when ours has ended."""

    url: str
    pid: int | None
    ours: bool
    check: Callable[[], None]


@contextlib.contextmanager
def started(flags: Sequence[str], environ: Mapping[str, str]) -> Iterator[Server]:
    """A sidecar with these flags and variables, on a free port of loopback, until the block ends."""
    port = _free_port()
    # Neither it nor its engine outlives us, whatever ends us.
    leash = (sys.executable, "-I", "-S", LEASH, str(os.getpid()))
    command = [
        *leash, sys.executable, "-m", "sidecar", "serve", *flags, "--host", HOST, "--port", str(port),
    ]  # fmt: skip
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, env={**environ, **OWN}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,  # a Ctrl-C is ours to pass on
        )  # fmt: skip
        try:
            yield Server(url_of(HOST, port), process.pid, True, lambda: _check(process, log))
        finally:
            _stop(process)


def running(url: str, pid: int | None) -> Server:
    """One that somebody else has started."""
    return Server(url, pid, False, lambda: None)


def _check(process: subprocess.Popen[bytes], log: IO[str]) -> None:
    if (code := process.poll()) is None:
        return
    log.seek(0)
    lines = [line for line in log.read().splitlines() if line.strip()]
    raise NothingToSoak(f"the sidecar ended with exit code {code}: {lines[-1] if lines else 'no word'}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])
