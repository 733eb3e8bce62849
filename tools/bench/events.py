"""What the sidecar adds to an event, and a bare relay of bytes: processor time, and the way of the first."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.bench.figures import Point
from tools.bench.machine import Host
from tools.bench.overhead import EVENT_US, limit, own_cpu_s, registry, started
from tools.bench.servers import ROOT, Server, free_port
from tools.bench.show import Show
from tools.bench.streaming import first_event_s, ready, streamed

PROMPT = "words"
WARM_UP_EVENTS = 100
FRAME = '{"index":0,"content":" word","tokens":[17],"stop":false,"id_slot":0,"tokens_predicted":9}'
FRAMES, FIRSTS = 100, 40


@dataclass(frozen=True, slots=True)
class Pace:
    """So many streams of so many events, one every so many seconds on each."""

    streams: int
    events: int
    every_s: float

    @property
    def what(self) -> str:
        """In words."""
        each = "a millisecond" if self.every_s == 0.001 else f"in {self.every_s * 1e3:g} ms"
        return f"one event, {self.streams} stream{'s' if self.streams > 1 else ''} of one event {each}"


FAST = Pace(8, 2000, 0.001)
# As llama-server brings them to one stream in the table of tokens per second: each finds all asleep.
SLOW = Pace(1, 300, 0.016)


@dataclass(frozen=True, slots=True)
class Figure:
    """What is measured of a server that stands before the stand-in; `of` takes both, and the pace."""

    what: str
    unit: str
    pace: Pace
    of: Callable[[Server, Server, Pace], float]


def measure(model: Path, pairs: int, host: Host, show: Show) -> list[Point]:
    """Ours beside the relay, in turn, and ours against the limit."""
    figures = (
        Figure(FAST.what, "us", FAST, _event_us),
        Figure(SLOW.what, "us", SLOW, _event_us),
        Figure("the first event, later than without", "ms", SLOW, _later_ms),
    )
    points = [_beside_relay(model, figure, pairs, host, show) for figure in figures]
    return [*points, _asleep(SLOW, pairs, host), limit(FAST.what, "us", points[0].ours, EVENT_US)]


def _beside_relay(model: Path, figure: Figure, pairs: int, host: Host, show: Show) -> Point:
    found: tuple[list[float], list[float]] = ([], [])
    pace, folder = figure.pace, model.parent
    with sidecar(model, pace) as ours, _stand_in(folder, pace) as alone, _relay(folder, alone) as theirs:
        for server in (ours, theirs):
            asyncio.run(ready(server))
            asyncio.run(streamed(server, PROMPT, pace.streams, WARM_UP_EVENTS))
        for index in range(pairs):
            show(f"{figure.what}, pair {index + 1} of {pairs}")
            for server, kept in zip((ours, theirs), found, strict=True):
                host.calm()
                kept.append(figure.of(server, alone, pace))
    what = f"{figure.what}; theirs is a relay of bytes"
    return Point("event", what, figure.unit, *found, less_is_better=True)


def _event_us(server: Server, _: Server, pace: Pace) -> float:
    before_s = own_cpu_s(server)
    asyncio.run(streamed(server, PROMPT, pace.streams, pace.events))
    return (own_cpu_s(server) - before_s) * 1e6 / (pace.streams * pace.events)


def _later_ms(server: Server, alone: Server, _: Pace) -> float:
    """The median. There is no model: its own first token comes sooner and later by more than this is."""
    return statistics.median(_first_s(server) - _first_s(alone) for _ in range(FIRSTS)) * 1e3


def _first_s(server: Server) -> float:
    if server.dialect == "stand-in":
        return asyncio.run(first_event_s(f"{server.url}/completion", {"n_predict": 2}))
    body = {"prompt": PROMPT, "max_tokens": 2, "stream": True}
    return asyncio.run(first_event_s(f"{server.url}/v1/completions", body))


def _asleep(pace: Pace, pairs: int, host: Host) -> Point:
    """What this machine takes for work that nothing of ours is in, of a process that slept until it came."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs):
        host.calm()
        for pause_s, kept in zip((pace.every_s, 0.0), found, strict=True):
            kept.append(statistics.median(_frame_us(pause_s) for _ in range(FRAMES)))
    what = f"a frame through Python's json and back after {pace.every_s * 1e3:g} ms of sleep; theirs without"
    return Point("event", what, "us", *found, less_is_better=True)


def _frame_us(pause_s: float) -> float:
    if pause_s:
        time.sleep(pause_s)  # to be asleep when the work comes is what is measured
    began_ns = time.thread_time_ns()
    json.dumps(json.loads(FRAME))
    return (time.thread_time_ns() - began_ns) / 1e3


@contextlib.contextmanager
def sidecar(model: Path, pace: Pace, *flags: str) -> Iterator[Server]:
    """Ours, over the stand-in; what it needs is written beside the model, whose header is read."""
    program = model.parent / "llama-server"
    stand_in = f'exec "{sys.executable}" -m tools.bench.upstream --every-s {pace.every_s} "$@"'
    program.write_text(f'#!/bin/sh\ncd "{ROOT}" && {stand_in}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    port, profiles = free_port(), registry(model, "events", context=4096, slots=pace.streams)
    command = [
        sys.executable, "server.py", "--profile", "bench", "--port", str(port),
        "--profiles_config", str(profiles), "--llama_server", str(program), *flags,
    ]  # fmt: skip
    with started(command, profiles) as (process, began):
        yield Server("ours", "ours", f"http://127.0.0.1:{port}", process, began)


@contextlib.contextmanager
def _stand_in(folder: Path, pace: Pace) -> Iterator[Server]:
    port = free_port()
    command = [
        sys.executable, "-m", "tools.bench.upstream", "--port", str(port), "--every-s", str(pace.every_s),
    ]  # fmt: skip
    with started(command, folder / "stand-in") as (process, began):
        yield Server("stand-in", "stand-in", f"http://127.0.0.1:{port}", process, began)


@contextlib.contextmanager
def _relay(folder: Path, upstream: Server) -> Iterator[Server]:
    port = free_port()
    command = [
        sys.executable, "-m", "tools.bench.relay", "--port", str(port), "--upstream", upstream.url,
    ]  # fmt: skip
    with started(command, folder / "relay") as (process, began):
        yield Server("relay", "relay", f"http://127.0.0.1:{port}", process, began)
