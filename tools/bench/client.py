"""What the client of `llm-sidecar bench` costs, against a server in another process that keeps a pace."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sidecar.bench.report_text import seconds
from tools.bench import machine
from tools.bench.figures import number, rounded
from tools.bench.overhead import started
from tools.bench.servers import ROOT, free_port
from tools.bench.show import Show, progress

STREAMS = 32
PACES_MS = (50.0, 20.0, 10.0, 5.0)
RUN_S, QUICK_S = 15.0, 2.0
TITLE = "## The benchmark's own client"


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """A row for each pace; quick: one, short."""
    others, paces = machine.Others(), PACES_MS[1:2] if quick else PACES_MS
    with progress(len(paces)) as show:
        rows = [_row(folder, pace_ms, QUICK_S if quick else RUN_S, show) for pace_ms in paces]
    return {
        "machine": machine.facts() | {"busy_by_others_cores": rounded(others.cores())},
        "streams": STREAMS,
        "rows": rows,
    }


def _row(folder: Path, pace_ms: float, run_s: float, show: Show) -> dict[str, Any]:
    show(f"the client, {STREAMS} streams of one token every {pace_ms:g} ms")
    port = free_port()
    server = [sys.executable, "-m", "tools.bench.paced", "--port", str(port), "--every-ms", str(pace_ms)]
    folder.mkdir(parents=True, exist_ok=True)
    with started(server, folder / "paced") as (process, _):
        while not _listens(port):
            if process.poll() is not None:
                raise RuntimeError(f"the paced server ended; its log is in {folder}")
            time.sleep(0.05)
        report = _bench(port, round(run_s * 1e3 / pace_ms))
    return {"pace_ms": pace_ms} | {
        key: report[key]
        for key in ("events", "seconds", "client_cpu_s", "first_token_s", "inter_token_s", "failed")
    }


def _listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def _bench(port: int, tokens: int) -> dict[str, Any]:
    """The report. RuntimeError where a request failed."""
    command = [
        sys.executable, "-m", "sidecar", "bench", "--url", f"http://127.0.0.1:{port}", "--json",
        "--requests", str(STREAMS), "--concurrency", str(STREAMS), "--max-tokens", str(tokens),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the benchmark ended with {done.returncode}: {done.stderr or done.stdout}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def render(client: dict[str, Any] | None) -> str:
    """The part of docs/benchmarks.md; the same results give the same text."""
    if client is None:
        return f"{TITLE}\n\nNot measured here: `python -m tools.bench --client` fills this in."
    m, streams = client["machine"], client["streams"]
    lines = [
        TITLE,
        "",
        f"`llm-sidecar bench` with {streams} streams, against a server in another process that sends "
        f"a token on each of them at a fixed pace; measured {m['date']} on {m['cores']} cores of {m['cpu']}; "
        f"others kept {m['busy_by_others_cores']:.2f} cores busy.",
        "",
        "| a token every | events/s | of a core | processor time an event | between two, p50 | p95 | p99 |",
        "|---:|" + "---:|" * 6,
    ]
    for row in client["rows"]:
        between = row["inter_token_s"]
        cells = [
            f"{row['pace_ms']:g} ms",
            number(row["events"] / row["seconds"]),
            f"{row['client_cpu_s'] / row['seconds']:.0%}",
            f"{number(row['client_cpu_s'] / row['events'] * 1e6)} us",
            *(seconds(between[name]) for name in ("p50", "p95", "p99")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
