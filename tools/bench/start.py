"""From nothing to the first token, and the second request of the same long prompt."""

from __future__ import annotations

from pathlib import Path

from tools.bench import servers
from tools.bench.checkpoint import prompt
from tools.bench.figures import Point
from tools.bench.load import Ask, first_token_s, run
from tools.bench.servers import Sizes
from tools.bench.show import Show

PREFIX_TOKENS = 900


def starts(model: Path, sizes: Sizes, pairs: int, show: Show) -> list[Point]:
    """Fresh processes, one at a time: seconds to the first token, and memory held then."""
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    resident: dict[str, list[float]] = {"ours": [], "theirs": []}
    for index in range(pairs):
        show(f"start to first token, pair {index + 1} of {pairs}")
        for name in ("ours", "theirs"):
            with servers.running(name, model, sizes) as server:
                seconds[name].append(first_token_s(server, Ask(prompt(64, "start"), 64, 4)))
                resident[name].append(server.resident_mib())
    return [
        Point(
            "start", "process start to first token", "s", seconds["ours"], seconds["theirs"], 1.0,
            less_is_better=True,
        ),
        Point(
            "memory", "resident after the first answer", "MiB", resident["ours"], resident["theirs"], 1.0,
            less_is_better=True,
        ),
    ]  # fmt: skip


def prefix_reuse(model: Path, sizes: Sizes, pairs: int, show: Show) -> Point:
    """Ours only: the first-token time of a prompt, the first time (`theirs`) and the second (`ours`)."""
    show(f"the same {PREFIX_TOKENS} tokens twice")
    again, new = [], []
    with servers.running("ours", model, sizes) as server:
        first_token_s(server, Ask(prompt(64, "start"), 64, 4))
        for index in range(pairs):
            ask = Ask(prompt(PREFIX_TOKENS, f"prefix {index}"), PREFIX_TOKENS, 4)
            new.append(run(server, [ask]).first_p50_s)
            again.append(run(server, [ask]).first_p50_s)
    what = f"{PREFIX_TOKENS} tokens, second time against first"
    return Point("prefix", what, "s", again, new, less_is_better=True)
