"""`server.py` as a user starts it: a process, a port, signals, an exit code."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
# The settings of whoever runs the tests must not be theirs.
CLEAN = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}


def free_port() -> int:
    """A port that nobody had a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> float:
    """Wait for the condition; seconds that it took. AssertionError when it never comes."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if condition():
            return time.monotonic() - began
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s: {what}")


@dataclass
class Program:
    """One run of the server."""

    process: subprocess.Popen[str]
    port: int
    output: Path

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def printed(self) -> str:
        """What stood on the terminal so far."""
        return self.output.read_text()

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON; 0 while nobody listens."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, None

    def post(self, path: str, **body: Any) -> tuple[int, Any]:
        """Status and JSON of a posted body."""
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def ready(self) -> bool:
        """Whether a generation would be tried now."""
        return self.get("/readyz")[0] == 200

    def announced(self) -> bool:
        """Whether the ready screen is there: from then on nobody asks anything but the test."""
        return "\n  Ready " in self.printed()

    def child(self) -> psutil.Process:
        """The engine's process, of which there is one: our worker or llama-server."""
        (engine,) = self.children()
        return engine

    def children(self) -> list[psutil.Process]:
        """The engine's process, if it has been started."""
        return [c for c in psutil.Process(self.process.pid).children() if _is_engine(c)]

    def active(self) -> float:
        """The gauge `active_requests`."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("active_requests")))

    def waiting(self) -> int:
        """Requests in the queue."""
        request = urllib.request.Request(self.url + "/metrics", headers={"accept": "application/json"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(json.load(answer)["requests_waiting"])


def _is_engine(process: psutil.Process) -> bool:
    """Our worker (or a fake one), or a llama-server with a model: it is also asked for its version."""
    try:
        line = process.cmdline()
    except psutil.NoSuchProcess:
        return False
    return "--fd" in line or ("--model" in line and any("llama-server" in word for word in line))


def serving(profile: str) -> dict[str, str]:
    """The variables for a server of that profile. One thread: those of llama-server wait spinning."""
    path = {k: v for k, v in os.environ.items() if k == "LLAMA_SERVER_PATH" and v}
    return {"LLM_PROFILE_NAME": profile, "THREADS": "1", **path}


@contextmanager
def program(
    folder: Path, *flags: str, entry: Sequence[str] = ("server.py",), **environ: str
) -> Iterator[Program]:
    """Start `server.py`, or what else Python shall run; it is killed at the end if it still runs."""
    port, output = free_port(), folder / "output.txt"
    with output.open("w") as sink:
        process = subprocess.Popen(
            [sys.executable, *entry, "--port", str(port), *flags],
            cwd=ROOT, env={**CLEAN, **environ}, stdout=sink, stderr=sink, text=True,
        )  # fmt: skip
    try:
        yield Program(process, port, output)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def finished(*flags: str, seconds: float = 100, **environ: str) -> tuple[int, str, str]:
    """Run `server.py` to its end: exit code, standard output, standard error."""
    done = subprocess.run(
        [sys.executable, "server.py", *flags],
        cwd=ROOT, env={**CLEAN, **environ}, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr
