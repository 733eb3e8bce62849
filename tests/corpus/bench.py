"""The servers that the corpus is sent to, and how they are after each case."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from tests.corpus.cases import Case
from tests.corpus.wire import Answer, exchange
from tests.e2e.program import Program, program, serving

HEALTH_SECONDS = 1.0
ANSWER_SECONDS = 40.0
GROWTH_BYTES = 64 * 1024**2
# Two tokens: it is asked after every case.
QUESTION, ANSWER = "What is the capital of France? The capital of France is", " Paris."


class Tripwire:
    """A listener at which nobody may ever call."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.port = int(listener.getsockname()[1])
        self.visits = 0

    def watch(self) -> None:
        """Count until the listener is shut."""
        while True:
            try:
                visitor, _ = self._listener.accept()
            except OSError:
                return
            self.visits += 1
            visitor.close()


@contextmanager
def tripwire() -> Iterator[Tripwire]:
    """On loopback, on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = Tripwire(listener)
        watcher = threading.Thread(target=found.watch)
        watcher.start()
        try:
            yield found
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            watcher.join()


@dataclass
class Server:
    """One running program, its engine as it was at first, and the memory of both."""

    program: Program
    key: str | None = None

    @cached_property
    def engine(self) -> psutil.Process:
        """The process that was there when it was first asked for: before anything bad is sent."""
        return self.program.child()

    def ask(self, method: str, path: str, timeout_s: float, **body: Any) -> Answer:
        """An ordinary request."""
        raw = json.dumps(body).encode() if body else b""
        key = f"Authorization: Bearer {self.key}\r\n" if self.key else ""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{key}"
            f"Content-Length: {len(raw)}\r\n\r\n"
        )
        return exchange(self.program.port, head.encode() + raw, timeout_s)

    def assert_unharmed(self) -> None:
        """It answers at once, its engine is the same, and what it says is right."""
        assert self.ask("GET", "/health", HEALTH_SECONDS).status == 200
        self.assert_same_engine()
        answer = self.ask("POST", "/generate", ANSWER_SECONDS, prompt=QUESTION, max_length=2)
        assert json.loads(answer.body) == {"generated_text": ANSWER}

    def assert_same_engine(self) -> None:
        """The process that was there at first."""
        assert self.engine.is_running()
        assert self.engine.status() != psutil.STATUS_ZOMBIE
        assert self.program.child().pid == self.engine.pid

    def resident_bytes(self) -> int:
        """Of the server and its engine."""
        server = psutil.Process(self.program.process.pid)
        return int(server.memory_info().rss + self.engine.memory_info().rss)


@dataclass
class Bench:
    """A server as it is by default, one with every setting that cases ask for, and the tripwire."""

    model: str
    open: Server
    guarded: Server
    tripwire: Tripwire
    deadlines: list[Future[str]] = field(default_factory=list)
    resident_bytes: dict[str, int] = field(default_factory=dict)

    def note_memory(self) -> None:
        """What both hold now is what they may hold later."""
        self.resident_bytes = {"open": self.open.resident_bytes(), "guarded": self.guarded.resident_bytes()}

    def assert_memory_is_flat(self) -> None:
        """Neither has grown much since."""
        for name, server in (("open", self.open), ("guarded", self.guarded)):
            grown = server.resident_bytes() - self.resident_bytes[name]
            assert grown < GROWTH_BYTES, f"the {name} server has grown by {grown / 1024**2:.0f} MiB"

    def server(self, case: Case) -> Server:
        """The one that the case is for."""
        return self.guarded if case.setup else self.open

    def send(self, case: Case) -> tuple[bytes, Answer]:
        """What was sent, and what came back."""
        port = self.server(case).program.port
        values = {
            "MODEL": self.model,
            "HOST": f"127.0.0.1:{port}",
            "TRIP_PORT": str(self.tripwire.port),
        }
        request = case.request(values)
        closing = any("closed" in check for check in case.checks)
        return request, exchange(port, request, ANSWER_SECONDS, closing)

    def prompt_tokens_of(self, text: str) -> int:
        """Of a conversation of one turn."""
        messages = [{"role": "user", "content": text}]
        answer = self.open.ask(
            "POST", "/v1/chat/completions", ANSWER_SECONDS, messages=messages, max_tokens=1
        )
        return int(json.loads(answer.body)["usage"]["prompt_tokens"])


@contextmanager
def bench(profile: str, first: Program, folder: Path, cases: Iterable[Case]) -> Iterator[Bench]:
    """`first` serves the profile by default; the guarded one is started beside it, and may still be at it."""
    with ExitStack() as stack:
        environ = {**serving(profile), **settings_of(cases)}
        guarded = stack.enter_context(program(folder, **environ))
        wire = stack.enter_context(tripwire())
        yield Bench(profile, Server(first), Server(guarded, environ["API_KEY"]), wire)


def settings_of(cases: Iterable[Case]) -> dict[str, str]:
    """Every setting that a case asks for, as variables."""
    found: dict[str, str] = {}
    for case in cases:
        found |= dict(_variable(name, value) for name, value in case.setup.items())
    return found


def _variable(name: str, value: Any) -> tuple[str, str]:
    return name.upper(), ",".join(value) if isinstance(value, list) else str(value)
