"""What one event costs the sidecar's processor, and what it costs a bare relay of bytes."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.bench.figures import Point
from tools.bench.overhead import EVENT_US, limit, own_cpu_s, registry, started
from tools.bench.servers import ROOT, Server, free_port
from tools.bench.show import Show
from tools.bench.streaming import ready, streamed

STREAMS, EVENTS = 8, 2000
PROMPT = "words"
WARM_UP_EVENTS = 100
WHAT = f"one event, {STREAMS} streams of one event a millisecond"


def measure(model: Path, pairs: int, show: Show) -> list[Point]:
    """Microseconds per event of ours and of the relay, in turn; and ours against the limit."""
    found: tuple[list[float], list[float]] = ([], [])
    with sidecar(model) as ours, _relay(model.parent) as theirs:
        for server in (ours, theirs):
            asyncio.run(ready(server))
            asyncio.run(streamed(server, PROMPT, STREAMS, WARM_UP_EVENTS))
        for index in range(pairs):
            show(f"processor time per event, pair {index + 1} of {pairs}")
            for server, kept in zip((ours, theirs), found, strict=True):
                kept.append(_event_us(server))
    against = Point("event", f"{WHAT}; theirs is a relay of bytes", "us", *found, less_is_better=True)
    return [against, limit(WHAT, "us", found[0], EVENT_US)]


def _event_us(server: Server) -> float:
    before_s = own_cpu_s(server)
    asyncio.run(streamed(server, PROMPT, STREAMS, EVENTS))
    return (own_cpu_s(server) - before_s) * 1e6 / (STREAMS * EVENTS)


@contextlib.contextmanager
def sidecar(model: Path, *flags: str) -> Iterator[Server]:
    """Ours, over the stand-in; what it needs is written beside the model, whose header is read."""
    program = model.parent / "llama-server"
    program.write_text(f'#!/bin/sh\ncd "{ROOT}" && exec "{sys.executable}" -m tools.bench.upstream "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    port, profiles = free_port(), registry(model, "events", context=4096, slots=STREAMS)
    command = [
        sys.executable, "server.py", "--profile", "bench", "--port", str(port),
        "--profiles_config", str(profiles), "--llama_server", str(program), *flags,
    ]  # fmt: skip
    with started(command, profiles) as (process, began):
        yield Server("ours", "ours", f"http://127.0.0.1:{port}", process, began)


@contextlib.contextmanager
def _relay(folder: Path) -> Iterator[Server]:
    upstream, port = free_port(), free_port()
    serve = [sys.executable, "-m", "tools.bench.upstream", "--port", str(upstream)]
    relay = [
        sys.executable, "-m", "tools.bench.relay", "--port", str(port),
        "--upstream", f"http://127.0.0.1:{upstream}",
    ]  # fmt: skip
    log = folder / "relay"
    with started(serve, log), started(relay, log) as (process, began):
        yield Server("relay", "relay", f"http://127.0.0.1:{port}", process, began)
