"""Tokens per second and time to the first token, both servers up, one idle while the other works."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.bench import servers
from tools.bench.checkpoint import prompt
from tools.bench.figures import Point
from tools.bench.load import Ask, Run, first_token_s, run
from tools.bench.servers import Server, Sizes
from tools.bench.show import Show


@dataclass(frozen=True, slots=True)
class Shape:
    """One load: how many streams of what, and how many times their speed is wanted."""

    streams: int
    prompt_tokens: int
    new_tokens: int
    wanted: float
    sampled: bool = False

    @property
    def title(self) -> str:
        """How the load is called in tables."""
        kind = "sampled" if self.sampled else "greedy"
        streams = f"{self.streams} stream{'s' if self.streams > 1 else ''}"
        return f"{streams}, {self.prompt_tokens} + {self.new_tokens} tokens, {kind}"

    def asks(self, round_name: str) -> list[Ask]:
        """Prompts that no server has seen before, so that no prefix is shared."""
        names = [f"{self.title}/{round_name}/{i}" for i in range(self.streams)]
        return [
            Ask(prompt(self.prompt_tokens, name), self.prompt_tokens, self.new_tokens, self.sampled)
            for name in names
        ]


GREEDY = (
    Shape(1, 64, 64, 1.3),
    Shape(8, 64, 32, 1.3),
    Shape(32, 64, 32, 1.3),
    Shape(16, 480, 32, 3.0),
    Shape(32, 480, 32, 3.0),
)
SAMPLED = tuple(Shape(streams, 64, new, 2.0, sampled=True) for streams, new in ((1, 64), (8, 32), (32, 32)))
QUICK = (Shape(2, 64, 8, 1.3), Shape(2, 128, 8, 3.0))
QUICK_SAMPLED = (Shape(2, 64, 8, 2.0, sampled=True),)
WARM_UP = Shape(2, 64, 4, 0.0)


@dataclass(slots=True)
class Duel:
    """Two running servers. `idle_cpu_s` is what the waiting one used in `spent_s` seconds of work."""

    ours: Server
    theirs: Server
    idle_cpu_s: float = 0.0
    spent_s: float = 0.0
    texts: list[tuple[Sequence[str], Sequence[str]]] = field(default_factory=list)

    def pair(self, shape: Shape, round_name: str) -> tuple[Run, Run]:
        """The same prompts to ours, then to theirs."""
        asks = shape.asks(round_name)
        ours = self._alone(self.ours, self.theirs, asks)
        theirs = self._alone(self.theirs, self.ours, asks)
        self.texts.append((ours.texts, theirs.texts))
        return ours, theirs

    def same_texts(self) -> float:
        """The share of all answers that were equal to the letter."""
        both = [pair for ours, theirs in self.texts for pair in zip(ours, theirs, strict=True)]
        return sum(a == b for a, b in both) / len(both)

    def _alone(self, working: Server, waiting: Server, asks: Sequence[Ask]) -> Run:
        before_s, began = waiting.cpu_s(), time.monotonic()
        found = run(working, asks)
        self.idle_cpu_s += waiting.cpu_s() - before_s
        self.spent_s += time.monotonic() - began
        return found


def measure(
    model: Path, sizes: Sizes, shapes: Sequence[Shape], pairs: int, show: Show
) -> tuple[list[Point], dict[str, float]]:
    """All shapes on one pair of servers; the points, and what was seen beside them.

    All shapes are greedy or all are sampled: transformers keeps the first request's settings.
    """
    kind = "sampled" if shapes[0].sampled else "greedy"
    with servers.running("ours", model, sizes) as ours, servers.running("theirs", model, sizes) as theirs:
        for server in (ours, theirs):
            show(f"start {server.name}")
            first_token_s(server, Shape(1, 64, 4, 0.0, shapes[0].sampled).asks("start")[0])
        duel = Duel(ours, theirs)
        points = [point for shape in shapes for point in _compared(duel, shape, pairs, show)]
        points += _memory(duel, f"after all {kind} loads")
    seen = {f"cores used by the server that waits, {kind}": duel.idle_cpu_s / duel.spent_s}
    if kind == "greedy":
        seen["share of answers equal to the letter, greedy"] = duel.same_texts()
    return points, seen


def _compared(duel: Duel, shape: Shape, pairs: int, show: Show) -> list[Point]:
    warm = Shape(min(shape.streams, 8), shape.prompt_tokens, 4, 0.0, shape.sampled)
    duel.pair(warm, "warm-up")
    runs = []
    for index in range(pairs):
        show(f"{shape.title}, pair {index + 1} of {pairs}")
        runs.append(duel.pair(shape, str(index)))
    ours, theirs = [a for a, _ in runs], [b for _, b in runs]
    speed = Point(
        "speed", shape.title, "tokens/s",
        [r.tokens_per_s for r in ours], [r.tokens_per_s for r in theirs], shape.wanted,
    )  # fmt: skip
    decode = Point(
        "decode", shape.title, "tokens/s",
        [r.decode_per_s for r in ours], [r.decode_per_s for r in theirs],
    )  # fmt: skip
    first = [
        Point("first", f"{shape.title}, {name}", "s", a, b, 1.0, less_is_better=True)
        for name, a, b in (
            ("p50", [r.first_p50_s for r in ours], [r.first_p50_s for r in theirs]),
            ("p95", [r.first_p95_s for r in ours], [r.first_p95_s for r in theirs]),
        )
    ]
    return [speed, decode, *first]


def _memory(duel: Duel, when: str) -> list[Point]:
    both = (duel.ours, duel.theirs)
    now, peak = [s.resident_mib() for s in both], [s.peak_mib() for s in both]
    return [
        Point("memory", f"resident {when}", "MiB", [now[0]], [now[1]], 1.0, less_is_better=True),
        Point("memory", f"peak {when}", "MiB", [peak[0]], [peak[1]], 1.0, less_is_better=True),
    ]
