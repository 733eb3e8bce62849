"""`python -m tools.http_servers`: the corpus of bad requests and the cost of an event, server by server.

Prints the table of docs/architecture.md. hypercorn, granian and httptools are no dependencies: install
them beside the project (`python -m venv other && other/bin/pip install hypercorn granian httptools`) and
name that folder: `PYTHONPATH=other/lib/python3.11/site-packages python -m tools.http_servers`. What is not
there is left out, with a line that says so.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from importlib.util import find_spec

from tests.corpus.cases import load
from tools.bench.servers import Server
from tools.bench.show import Show, progress
from tools.http_servers.candidate import CANDIDATES
from tools.http_servers.corpus import Verdict, judged
from tools.http_servers.cost import STREAMS, event_us, requests_per_s, started

NEEDS = {"uvicorn, httptools": "httptools", "hypercorn": "hypercorn", "granian": "granian"}
PAIRS = 5


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tools.http_servers", description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="how often each cost is measured")
    parser.add_argument("--only", choices=("corpus", "cost"), help="one half of it")
    options = parser.parse_args()
    names = [name for name in CANDIDATES if _there(name)]
    print(", ".join(f"{package} {metadata.version(package)}" for package in _packages(names)))
    if options.only != "cost":
        _show_corpus(names)
    if options.only != "corpus":
        _show_cost(names, options.pairs)
    return 0


def _there(name: str) -> bool:
    package = NEEDS.get(name)
    found = package is None or find_spec(package) is not None
    if not found:
        print(f"left out: {name}; `pip install {package}` beside the project, see --help")
    return found


def _packages(names: Sequence[str]) -> list[str]:
    return ["uvicorn", "h11", *(NEEDS[name] for name in names if name in NEEDS)]


def _show_corpus(names: Sequence[str]) -> None:
    cases = load()
    with ThreadPoolExecutor(len(names)) as pool:  # most of the time is waiting for deadlines
        verdicts = dict(zip(names, pool.map(lambda name: judged(name, cases), names), strict=True))
    print("\n| server | right | wrong: bytes | wrong: deadlines | wrong: rest | refusals in plain text |")
    print("|---|" + "---:|" * 5)
    for name, verdict in verdicts.items():
        print(f"| {name} | {_row(verdict)} |")
    for name, verdict in verdicts.items():
        print(f"\n{name}: " + "; ".join([*verdict.lines, f"plain text: {', '.join(verdict.plain)}"]))


def _row(verdict: Verdict) -> str:
    counts = (verdict.wrong["bytes"], verdict.wrong["deadlines"], verdict.wrong["rest"], len(verdict.plain))
    return f"{verdict.right} of {verdict.cases} | " + " | ".join(map(str, counts))


def _show_cost(names: Sequence[str], pairs: int) -> None:
    found: dict[str, list[list[float]]] = {name: [[] for _ in (*STREAMS, "rate")] for name in names}
    with _all(names) as servers, progress(pairs * len(servers)) as show:
        for turn in range(pairs):
            for name, server in servers.items():
                _measure(name, server, found[name], turn, show)
    print("\n| server |" + "".join(f" us per event, {n} |" for n in STREAMS) + " requests/s |")
    print("|---|" + "---:|" * (len(STREAMS) + 1))
    for name in names:
        print(f"| {name} | " + " | ".join(map(_spread, found[name])) + " |")


def _measure(name: str, server: Server, found: list[list[float]], turn: int, show: Show) -> None:
    show(f"{name}, round {turn + 1}")
    for column, streams in zip(found, STREAMS, strict=False):
        column.append(event_us(server, streams))
    found[-1].append(requests_per_s(server))


@contextlib.contextmanager
def _all(names: Sequence[str]) -> Iterator[dict[str, Server]]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(started(name)) for name in names}


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


if __name__ == "__main__":
    raise SystemExit(main())
