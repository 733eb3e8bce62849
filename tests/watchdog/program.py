"""The watchdog as a process."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Program:
    """`python -m watchdog` against the engine at `docker_host`; the control socket is in `folder`."""

    def __init__(self, docker_host: str, folder: Path, *argv: str, **environ: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.environ = {
            "PATH": os.environ["PATH"],
            "DOCKER_HOST": docker_host,
            "CONTROL_SOCKET": str(folder / "control.sock"),
            "WATCHDOG_INTERVAL": "1s",
            "WATCHDOG_STATUS_PORT": str(self.port),
            **environ,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "watchdog", *argv],
            cwd=ROOT,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, timeout_s: float = 30) -> tuple[int, str, str]:
        """Wait for its end: code, output, errors."""
        out, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out, err

    def get(self, path: str) -> Any:
        """What it says at `path`; None while it does not."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def sentences(self) -> list[str]:
        return [entry["sentence"] for entry in self.get("/events") or []]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def watchdog(docker_host: str, folder: Path) -> Iterator[Program]:
    """Running; gone at the end."""
    program = Program(docker_host, folder)
    try:
        yield program
    finally:
        program.kill()
