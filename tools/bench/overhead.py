"""What the sidecar costs in front of llama-server: the same flags and file, with and without it."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from sidecar.llama_args import LlamaFiles, llama_args
from sidecar.llama_flags import parse_help
from sidecar.registry import load_registry
from tools.bench.checkpoint import CONTROL, VOCABULARY, prompt
from tools.bench.figures import Point
from tools.bench.load import Ask, Run, first_token_s, run
from tools.bench.machine import Host
from tools.bench.servers import ROOT, Server, free_port
from tools.bench.show import Show
from tools.embedded_model.export_gguf import export

PROMPT_TOKENS, NEW_TOKENS = 64, 64
# Streams, and pairs of turns with so many. A turn of one is over in a second, and pairs differ by a tenth.
STREAMS = {1: 25, 8: 10, 32: 8}
QUICK = {1: 1}
SHORT_TOKENS, FIRST_ASKS = 2, 40
CONTEXT = 256
# One thread works for the model, so that the other core is there for both clients and the sidecar:
# in service the model works on a card.
ENGINE_THREADS = 1
SPEED, FIRST_MS, EVENT_US, RESIDENT_MIB = 0.97, 3.0, 60.0, 120.0


def gguf(checkpoint: Path) -> Path:
    """The checkpoint as Q8_0, made when it is not there yet."""
    target = checkpoint.parent / "model-q8_0.gguf"
    if not target.exists():
        control = range(VOCABULARY - len(CONTROL), VOCABULARY)
        export(checkpoint, target, "q8_0", title="benchmark", ends=(control[2], control[0]))
    return target


@dataclass(frozen=True, slots=True)
class Duel:
    """Both servers, up, on this host. `ours` has a llama-server of its own below it."""

    ours: Server
    theirs: Server
    host: Host

    def pair(self, streams: int, name: str) -> tuple[Run, Run, float]:
        """The same prompts to ours, then to theirs; microseconds of the sidecar's processor per event."""
        asks = [
            Ask(prompt(PROMPT_TOKENS, f"{streams}/{name}/{i}"), PROMPT_TOKENS, NEW_TOKENS)
            for i in range(streams)
        ]
        self.host.calm()
        before = own_cpu_s(self.ours)
        ours = run(self.ours, asks)
        spent_us = (own_cpu_s(self.ours) - before) * 1e6
        self.host.calm()
        return ours, run(self.theirs, asks), spent_us / (streams * NEW_TOKENS)

    def first_later_ms(self, name: str) -> float:
        """By how much ours sends its first text later: the median of short prompts, ours and theirs in turn.

        A longer prompt would hide some milliseconds behind many that vary by more: with 8 tokens, which take
        100 ms, medians of 20 were between -1.6 and 5.9 ms; with 2, of 40, between 2.3 and 3.2.
        """
        self.host.calm()
        later_s = []
        for index in range(FIRST_ASKS):
            asks = [Ask(prompt(SHORT_TOKENS, f"first/{name}/{index}"), SHORT_TOKENS, 2)]
            later_s.append(run(self.ours, asks).first_p50_s - run(self.theirs, asks).first_p50_s)
        return statistics.median(later_s) * 1e3


def version(binary: str) -> str:
    """The program's own line about itself."""
    return parse_help(*(_said(binary, flag) for flag in ("--help", "--version"))).version


def measure(model: Path, binary: str, pairs: Mapping[int, int], host: Host, show: Show) -> list[Point]:
    """Speed, first token, processor time and memory; `binary` is the llama-server of both.

    `pairs` are STREAMS, or others.
    """
    profiles = registry(model, "overhead", context=CONTEXT, slots=max(STREAMS))
    with _ours(profiles, binary) as ours, _theirs(profiles, binary, model) as theirs:
        for server in (ours, theirs):
            first_token_s(server, Ask(prompt(PROMPT_TOKENS, "start"), PROMPT_TOKENS, 4))
        duel = Duel(ours, theirs, host)
        points = [point for streams in pairs for point in _points(duel, streams, pairs[streams], show)]
        resident_mib = ours.process.memory_info().rss / 2**20
        return [*points, limit("resident memory of the sidecar", "MiB", [resident_mib], RESIDENT_MIB)]


def _points(duel: Duel, streams: int, pairs: int, show: Show) -> list[Point]:
    duel.pair(streams, "warm-up")
    found = []
    for index in range(pairs):
        show(f"sidecar over llama-server, {streams} streams, pair {index + 1} of {pairs}")
        found.append(duel.pair(streams, str(index)))
    what = f"{streams} stream{'s' if streams > 1 else ''}, {PROMPT_TOKENS} + {NEW_TOKENS} tokens"
    speed = Point(
        "overhead", what, "tokens/s",
        [a.tokens_per_s for a, _, _ in found], [b.tokens_per_s for _, b, _ in found], SPEED,
    )  # fmt: skip
    event = limit(f"processor time per event, {what}", "us", [us for _, _, us in found], EVENT_US)
    if streams > 1:
        return [speed, event]
    later_ms = [duel.first_later_ms(str(index)) for index in range(pairs)]
    return [
        speed,
        limit(f"first token later by, 1 stream, a prompt of {SHORT_TOKENS} tokens", "ms", later_ms, FIRST_MS),
        event,
    ]


def limit(what: str, unit: str, found: Sequence[float], most: float) -> Point:
    """A figure that has a limit, in place of another server's."""
    # What is nothing, or less than nothing, is within it.
    held = [max(value, most / 1000) for value in found]
    return Point("cost", what, unit, held, [most] * len(held), 1.0, less_is_better=True)


def registry(model: Path, name: str, *, context: int, slots: int) -> Path:
    """A file with one profile, `bench`, for the model."""
    path = model.parent / f"{name}.yaml"
    path.write_text(
        f"""\
profiles:
  bench:
    backend: llamacpp
    model_id: bench
    gpu: {{max_model_len: {context}, max_concurrent_requests: {slots}}}
    llamacpp: {{model_path: "{model}", parallel: {slots}, threads: {ENGINE_THREADS}}}
"""
    )
    return path


@contextlib.contextmanager
def _ours(profiles: Path, binary: str) -> Iterator[Server]:
    port = free_port()
    command = [
        sys.executable, "server.py", "--profile", "bench", "--port", str(port),
        "--profiles_config", str(profiles), "--llama_server", binary,
    ]  # fmt: skip
    with started(command, profiles) as (process, began):
        yield Server("ours", "ours", f"http://127.0.0.1:{port}", process, began)


@contextlib.contextmanager
def _theirs(profiles: Path, binary: str, model: Path) -> Iterator[Server]:
    profile = load_registry(profiles).select("bench")
    port = free_port()
    words = llama_args(
        profile, LlamaFiles(model), parse_help(_said(binary, "--help")), port=port, on_gpu=False
    )
    with started([binary, *words], profiles) as (process, began):
        yield Server("theirs", "llama-server", f"http://127.0.0.1:{port}", process, began)


def _said(binary: str, flag: str) -> str:
    done = subprocess.run([binary, flag], capture_output=True, text=True, check=True)
    return done.stdout or done.stderr


@contextlib.contextmanager
def started(command: Sequence[str], beside: Path) -> Iterator[tuple[psutil.Popen, float]]:
    """The process, and when it was started; its log is a file of the name of `beside`."""
    log = beside.with_suffix(".log").open("ab")
    began = time.monotonic()
    process = psutil.Popen(
        command, cwd=ROOT, env=os.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process, began
    finally:
        Server("", "", "", process, began).stop()
        log.close()


def own_cpu_s(server: Server) -> float:
    """Of the sidecar alone, without the llama-server below it; to the nanosecond, not in ticks of 10 ms."""
    threads = Path(f"/proc/{server.process.pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
