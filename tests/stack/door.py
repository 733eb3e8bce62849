"""Real LiteLLM over real sidecars: processes, as the stack's containers run them.

LiteLLM lives in an environment of its own, `make install-litellm`; LITELLM_PYTHON is another one's Python.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.program import CLEAN, ROOT, free_port, until
from tests.faults.clients import Ask, Outcome, asked

PYTHON = Path(os.environ.get("LITELLM_PYTHON") or ROOT / "build" / "litellm" / "bin" / "python")
MODEL = "scripted"
# LiteLLM's start is some ten seconds of one core, and CI's two are busy.
START_S = 120.0


@dataclass
class Server:
    """One sidecar, over the scripted engine, that is started, killed and stopped at one port."""

    name: str
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, wait: bool = True) -> None:
        """Start it, and wait until it is ready."""
        command = [sys.executable, "-m", "tests.fakes.serve_scripted", "--port", str(self.port)]
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=CLEAN, stdout=log, stderr=log)
        if wait:
            self.until_ready()

    def until_ready(self) -> None:
        """Wait until a generation would be taken."""
        until(lambda: _answers(f"{self.url}/readyz"), f"{self.name} is ready")

    def kill(self) -> None:
        """As the kernel does it."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """As Docker does it: it finishes what it has and goes; then it is started."""
        self._end(signal.SIGTERM)
        self.start()

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None


@dataclass
class Door:
    """LiteLLM, and the servers behind it."""

    port: int
    servers: Sequence[Server]
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def ask(self, say: str = "one two three", stream: bool = False, pace_ms: int = 5, more: str = "") -> Ask:
        """A chat for the scripted engine: so many milliseconds for each of these words."""
        content = f"[say:{say}] [pace:{pace_ms}] {more}"
        body = {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": content}]}
        return Ask(f"d{next(self.numbers)}", "/v1/chat/completions", body)

    async def asked(self, ask: Ask) -> Outcome:
        """What became of it."""
        return await asked(self.port, ask)

    @contextlib.asynccontextmanager
    async def load(
        self, clients: int, say: str = "one two three", pace_ms: int = 5
    ) -> AsyncIterator[list[Outcome]]:
        """So many clients ask without end, every other answer streamed; afterwards the list is whole."""
        outcomes: list[Outcome] = []
        stopping = asyncio.Event()

        async def client() -> None:
            while not stopping.is_set():
                outcomes.append(await self.asked(self.ask(say, len(outcomes) % 2 == 0, pace_ms)))

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())
            try:
                yield outcomes
            finally:
                stopping.set()


async def answered(outcomes: list[Outcome], more: int, server: str | None = None) -> None:
    """Wait for so many more answers, of that server."""

    def count() -> int:
        return sum(server in (None, outcome.headers.get("x-litellm-model-id")) for outcome in outcomes)

    wanted = count() + more
    await asyncio.to_thread(until, lambda: count() >= wanted, f"{more} more answers of {server or 'anybody'}")


@contextmanager
def door(folder: Path, servers: Sequence[Server], **environ: str) -> Iterator[Door]:
    """LiteLLM before these, all of them ready. AssertionError when it is not installed."""
    with litellm(folder, [server.url for server in servers], **environ) as port:
        for server in servers:
            server.until_ready()
        yield Door(port, servers)


@contextmanager
def litellm(folder: Path, urls: Sequence[str], **environ: str) -> Iterator[int]:
    """LiteLLM before the servers at these, ready; yields its port. Stopped at the end."""
    assert PYTHON.exists(), "LiteLLM is not installed: make install-litellm"
    port = free_port()
    own = {"PORT": str(port), "DOOR_CONFIG": str(folder / "litellm.yaml"), **environ}
    for number, url in enumerate(urls, 1):
        own |= {f"GPU_SERVER_{number}_URL": url, f"GPU_SERVER_{number}_PROFILE": MODEL}
    command = [str(PYTHON), str(ROOT / "docker" / "litellm" / "door.py")]
    with (folder / "door.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env={**CLEAN, **own}, stdout=log, stderr=log)
    try:
        ready = f"http://127.0.0.1:{port}/health/readiness"
        until(lambda: process.poll() is not None or _answers(ready), "the door answers", START_S)
        assert process.poll() is None, (folder / "door.log").read_text()
        yield port
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        process.kill()
        process.wait()


@contextmanager
def running(folder: Path, *names: str) -> Iterator[list[Server]]:
    """Started; whatever became of them is gone at the end."""
    servers = [Server(name, folder) for name in names]
    try:
        for server in servers:
            server.start(wait=False)
        yield servers
    finally:
        for server in servers:
            server.kill()


def errors(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that were not answered whole."""
    return [outcome for outcome in outcomes if outcome.kind != "complete"]


def busy(server: Server) -> int:
    """How many requests it has."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("active_requests"))))


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status) == 200
    except OSError:
        return False
