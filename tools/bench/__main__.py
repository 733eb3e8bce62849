"""`python -m tools.bench`: measure everything, write docs/benchmarks.json and its tables."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from typing import Any

from sidecar.engines import llama_binary
from sidecar.errors import ConfigError
from tools.bench import (
    checkpoint,
    client,
    events,
    faults,
    forms,
    machine,
    overhead,
    report,
    sampler,
    scrape,
    soak,
    speed,
    stack,
    start,
)
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
    parser.add_argument("--llama", action="store_true", help="only what stands in front of llama-server")
    parser.add_argument("--faults", action="store_true", help="only what faults cost")
    parser.add_argument("--forms", action="store_true", help="only the answers that must be JSON")
    parser.add_argument("--soak", action="store_true", help="only the memory under the worst load")
    parser.add_argument("--client", action="store_true", help="only the client of `llm-sidecar bench`")
    parser.add_argument("--stack", action="store_true", help="only two sidecars behind LiteLLM")
    parser.add_argument("--scrape", action="store_true", help="only what a scrape costs")
    options = parser.parse_args()
    engines = options.llama or options.faults or options.forms or options.soak
    everything = not (engines or options.client or options.stack or options.scrape)
    try:
        # The client alone is measured against a server that has no engine.
        path = os.environ.get("LLAMA_SERVER_PATH")
        binary = llama_binary.find(path, os.environ) if engines or everything else ""
    except ConfigError as error:
        parser.exit(error.exit_code, f"{error.message}\n")
    # What is not measured stays: `make gpu-test` and each flag write their own part.
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    if everything:
        results |= measure(options.quick)
    if everything or options.llama:
        results["llama"] = measure_llama(binary, options.quick)
    if everything or options.forms:
        results["forms"] = measure_forms(options.quick)
    if everything or options.faults:
        results["faults"] = faults.measure(binary, options.quick)
    if everything or options.soak:
        results["soak"] = soak.measure(binary, options.quick)
    if everything or options.client:
        results["client"] = client.measure(WORK, options.quick)
    if everything or options.stack:
        results["stack"] = stack.measure(options.quick)
    if everything or options.scrape:
        results["scrape"] = measure_scrape(options.quick)
    if not options.quick:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        report.write(DOCUMENT, json.loads(RESULTS.read_text("utf-8")))
    print(report.render(results))
    return 0


def measure_llama(binary: str, quick: bool) -> dict[str, Any]:
    """The sidecar in front of llama-server, and llama-server alone."""
    turns = overhead.QUICK if quick else overhead.STREAMS
    pairs, others = 1 if quick else PAIRS, machine.Others()
    with progress(1 + sum(turns.values()) + 3 * pairs) as show:
        show("make the checkpoint")
        model, host = overhead.gguf(checkpoint.make(WORK / "model")), machine.Host()
        points = overhead.measure(model, binary, turns, host, show)
        points += events.measure(model, pairs, host, show)
    return {
        "machine": machine.facts() | {"busy_by_others_cores": rounded(others.cores())},
        "loop_ms": host.loop_ms(),
        "build": overhead.version(binary),
        "points": [point.as_json() for point in points],
    }


def measure_scrape(quick: bool) -> dict[str, Any]:
    """What Prometheus costs."""
    pairs, others = 1 if quick else PAIRS, machine.Others()
    folder = WORK / "scrape"
    folder.mkdir(parents=True, exist_ok=True)
    with progress(pairs) as show:
        found = scrape.measure(folder, pairs, show)
    return {"machine": machine.facts() | {"busy_by_others_cores": rounded(others.cores())}, **found}


def measure_forms(quick: bool) -> dict[str, Any]:
    """Answers that must be JSON, on both engines."""
    others = machine.Others()
    with progress(len(forms.ENGINES)) as show:
        rows = forms.measure(quick, show)
    return {"machine": machine.facts() | {"busy_by_others_cores": rounded(others.cores())}, "rows": rows}


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


if __name__ == "__main__":
    raise SystemExit(main())
