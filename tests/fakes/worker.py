"""A worker without a model: `python worker.py SCRIPT... --fd N`, started in place of the real one.

It echoes: each choice of the answer to a prompt is the prompt's words, one a step. What it does
wrong is said by the words of SCRIPT:

    refuse          answers Load with Refused
    die-loading     exits 3 in place of loading
    die-at=N        exits 1 when the Nth request begins
    bad-alloc       ends as C++ does without memory, when a request begins
    mute            loads, prices, and then never says a word
    garbage         writes a frame that is not msgpack
    orphan          leaves a grandchild that holds stderr open, and prints its pid
    stubborn        ignores SIGTERM and the end of its socket
    slots=N         so many requests at a time, not 4
    context=N       tokens of prompt and answer, not 512
    leak=KIB        keeps so much of main memory for each request, for ever
    oom-at=N        has no memory for the Nth request
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time

from sidecar.errors import ContextOverflow, OutOfMemory
from sidecar.generation import Capacity, EngineStats, Price, Usage
from sidecar.worker import messages
from sidecar.worker.messages import (
    Begin,
    Cancel,
    FromWorker,
    Load,
    Loaded,
    Output,
    Prepare,
    Priced,
    Progress,
    Refused,
    Released,
    Step,
    Trim,
    Trimmed,
)

SCRIPT = sys.argv[1 : sys.argv.index("--fd")]
SOCKET = socket.socket(fileno=int(sys.argv[-1]))


def number(word: str, otherwise: int) -> int:
    """What the script says behind `word=`."""
    return next((int(said.partition("=")[2]) for said in SCRIPT if said.startswith(f"{word}=")), otherwise)


CONTEXT = number("context", 512)


def send(message: FromWorker) -> None:
    SOCKET.sendall(messages.frame(message))


class Echo:
    """Knows prepared and running requests; `step` gives each running one its next word."""

    def __init__(self) -> None:
        self.words: dict[str, list[str]] = {}
        self.choices: dict[str, int] = {}
        self.given: dict[str, int] = {}
        self.begun = 0
        self.kept: list[bytes] = []

    def hear(self, message: messages.ToWorker) -> None:
        match message:
            case Load():
                load()
            case Prepare(id=id, max_tokens=wanted) if wanted is not None and wanted > CONTEXT:
                error = ContextOverflow.of(1, wanted, CONTEXT)
                send(Released(id, code=error.code, message=error.message, param=error.param))
            case Prepare(id=id, token_ids=[_, *_], max_tokens=wanted, n=n):
                self.words[id], self.choices[id] = ["word"] * (wanted or 1), n
                send(Priced(id, Price(1, wanted or 1, 1)))
            case Prepare(id=id, text=text, messages=messages, n=n):
                said = text or (messages[-1].content if messages else "")
                self.words[id], self.choices[id] = said.split(), n
                send(Priced(id, Price(len(self.words[id]), len(self.words[id]), 1)))
            case Begin(id=id) if "mute" not in SCRIPT:
                self.begun += 1
                if "bad-alloc" in SCRIPT:
                    print("terminate called after throwing an instance of 'std::bad_alloc'", file=sys.stderr)
                    os.abort()
                if f"die-at={self.begun}" in SCRIPT:
                    sys.exit(1)
                self.kept.append(os.urandom(1024 * number("leak", 0)))
                if f"oom-at={self.begun}" in SCRIPT:
                    del self.words[id]
                    send(Released(id, code=OutOfMemory.code, message="needed 12 MiB, 3 MiB are free"))
                else:
                    self.given[id] = 0
            case Trim():
                send(Trimmed(12.5, EngineStats(resident_bytes=1024**2)))
            case Cancel(id=id):
                self.words.pop(id, None)
                self.given.pop(id, None)
                send(Released(id))

    def step(self) -> None:
        for id in list(self.given):
            words, at, choices = self.words[id], self.given[id], self.choices[id]
            last = at + 1 >= len(words)
            end = "stop" if last else None
            send(Step(tuple(Output(id, choice, f"{words[at]} ", end) for choice in range(choices))))
            self.given[id] += 1
            if last:
                del self.words[id], self.given[id]
                send(Released(id, Usage(len(words), len(words) * choices)))


def load() -> None:
    if "refuse" in SCRIPT:
        send(Refused("bad_config", "refused on purpose"))
        sys.exit(78)
    if "die-loading" in SCRIPT:
        print("missing tensor 'output.weight'", file=sys.stderr, flush=True)
        sys.exit(3)
    if "garbage" in SCRIPT:
        SOCKET.sendall(b"\x00\x00\x00\x03\xc1\xc1\xc1")
    if "orphan" in SCRIPT:
        child = subprocess.Popen(["sleep", "600"])
        print(f"grandchild {child.pid}", file=sys.stderr, flush=True)
        send(Progress("load", 0.5, str(child.pid)))
    send(Progress("load", 0.5, "half way"))
    send(Loaded("cpu", Capacity(number("slots", 4), 64, 16, CONTEXT), (("model", "echo"),), EngineStats()))


def main() -> None:
    if "stubborn" in SCRIPT:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    echo, frames = Echo(), messages.Frames()
    while True:
        # Not the socket's own timeout: that would count for sending too.
        if select.select([SOCKET], [], [], 0.005 if echo.given else None)[0]:
            data = SOCKET.recv(65536)
            if not data:
                break
            for body in frames.feed(data):
                echo.hear(messages.decode_to_worker(body))
        echo.step()
    while "stubborn" in SCRIPT:
        time.sleep(60)


if __name__ == "__main__":
    main()
