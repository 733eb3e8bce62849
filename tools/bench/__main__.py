"""`python -m tools.bench`: measure everything, write docs/benchmarks.json and its tables."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from tools.bench import checkpoint, machine, report, sampler, speed, start
from tools.bench.figures import Point, rounded
from tools.bench.servers import ROOT, Sizes
from tools.bench.show import progress

PAIRS = 5
WORK = ROOT / "build" / "bench"
RESULTS = ROOT / "docs" / "benchmarks.json"
DOCUMENT = ROOT / "docs" / "benchmarks.md"


def main() -> int:
    """Measure and write; `--quick` tries everything once, small, and leaves docs/ alone."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small pair of each; nothing in docs/")
    quick = parser.parse_args().quick
    results = measure(quick)
    if quick:
        print(report.render(results))
        return 0
    RESULTS.write_text(json.dumps(results | {"gpu": _gpu_before()}, indent=1) + "\n", "utf-8")
    report.write(DOCUMENT, json.loads(RESULTS.read_text("utf-8")))
    print(report.render(results))
    return 0


def measure(quick: bool) -> dict[str, Any]:
    """All results, as they are written."""
    sizes, pairs, others = Sizes(), 1 if quick else PAIRS, machine.Others()
    greedy = speed.QUICK if quick else speed.GREEDY
    sampled = speed.QUICK_SAMPLED if quick else speed.SAMPLED
    steps = 1 + len(sampler.CASES) + pairs * (1 + len(greedy) + len(sampled)) + 4 + 1
    with progress(steps) as show:
        show("make the checkpoint")
        model = checkpoint.make(WORK / "model")
        points: list[Point] = sampler.measure(pairs, show)
        points += start.starts(model, sizes, pairs, show)
        seen: dict[str, float] = {}
        for shapes in (greedy, sampled):
            found, beside = speed.measure(model, sizes, shapes, pairs, show)
            points += found
            seen |= beside
        points.append(start.prefix_reuse(model, sizes, pairs, show))
    return {
        "machine": machine.facts() | {"busy_by_others_cores": rounded(others.cores())},
        "sizes": asdict(sizes),
        "seen": {name: rounded(value) for name, value in seen.items()},
        "points": [point.as_json() for point in points],
    }


def _gpu_before() -> Any:
    """What `make gpu-test` wrote stays: this run has nothing to say about it."""
    if not RESULTS.exists():
        return None
    return json.loads(RESULTS.read_text("utf-8")).get("gpu")


if __name__ == "__main__":
    raise SystemExit(main())
