"""What a scrape costs: its own time, idle and at full load, and what the load notices of one every second."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from tools.bench import events
from tools.bench.servers import ROOT, Server, free_port
from tools.bench.show import Show
from tools.bench.streaming import ready, streamed

EVERY_S = 1.0
SCRAPES = 50
MS = 1e3


def measure(folder: Path, pairs: int, show: Show) -> dict[str, Any]:
    """Over the stand-in for llama-server: with the scraper and without it, in turn."""
    port, model = free_port(), folder / "model.gguf"
    shutil.copy(ROOT / "sidecar" / "embedded" / "embedded-q4_0.gguf", model)
    with events.sidecar(model, events.FAST, "--metrics_port", str(port)) as server:
        url = f"http://127.0.0.1:{port}/metrics"
        asyncio.run(ready(server))
        asyncio.run(streamed(server, events.PROMPT, events.FAST.streams, events.WARM_UP_EVENTS))
        idle, size = asyncio.run(_scraped(url, SCRAPES))
        before_s = _cpu_s(server)
        asyncio.run(_scraped(url, SCRAPES))
        cpu_ms = (_cpu_s(server) - before_s) * MS / SCRAPES
        with_it: list[tuple[float, float, list[float]]] = []
        without: list[tuple[float, float, list[float]]] = []
        for index in range(pairs):
            show(f"a scrape a second, pair {index + 1} of {pairs}")
            with_it.append(asyncio.run(_run(server, url)))
            without.append(asyncio.run(_run(server, None)))
    loaded = [seconds for _, _, found in with_it for seconds in found]
    return {
        "size_kib": round(size / 1024, 1),
        "cpu_ms": round(cpu_ms, 2),
        "idle_ms": _times(idle),
        "loaded_ms": _times(loaded),
        "events_per_s": _medians(0, with_it, without),
        "event_us": _medians(1, with_it, without),
        "pairs": pairs,
    }


async def _run(server: Server, url: str | None) -> tuple[float, float, list[float]]:
    """Events a second, processor time of one, and what each scrape took meanwhile."""
    found: list[float] = []
    scraper = asyncio.create_task(_scrape_on(url, found)) if url else None
    began, before_s = time.monotonic(), _cpu_s(server)
    await streamed(server, events.PROMPT, events.FAST.streams, events.FAST.events)
    took_s, spent_s = time.monotonic() - began, _cpu_s(server) - before_s
    if scraper:
        scraper.cancel()
    count = events.FAST.streams * events.FAST.events
    return count / took_s, spent_s * 1e6 / count, found


def _cpu_s(server: Server) -> float:
    """Of the sidecar without its engine, threads that have ended included: each scrape has one."""
    times = server.process.cpu_times()
    return float(times.user + times.system)


async def _scrape_on(url: str, found: list[float]) -> None:
    while True:
        found += (await _scraped(url, 1))[0]
        await asyncio.sleep(EVERY_S)


async def _scraped(url: str, times: int) -> tuple[list[float], int]:
    """Seconds of each scrape, and the bytes of the last."""
    found, size = list[float](), 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        for _ in range(times):
            began = time.monotonic()
            async with session.get(url) as answer:
                size = len(await answer.read())
            found.append(time.monotonic() - began)
    return found, size


def _times(seconds: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(seconds) * MS, 2), "worst": round(max(seconds) * MS, 2)}


def _medians(at: int, with_it: list[Any], without: list[Any]) -> dict[str, float]:
    of: Callable[[list[Any]], float] = lambda runs: round(statistics.median(run[at] for run in runs), 1)  # noqa: E731
    return {"with": of(with_it), "without": of(without)}


def render(scrape: dict[str, Any] | None) -> str:
    """The part of docs/benchmarks.md; the same results give the same text."""
    title = "## A scrape at full load"
    if scrape is None:
        return f"{title}\n\nNot measured here: `python -m tools.bench --scrape` fills this in."
    m, speed, cost = scrape["machine"], scrape["events_per_s"], scrape["event_us"]
    idle, loaded = scrape["idle_ms"], scrape["loaded_ms"]
    return (
        f"{title}\n\nMeasured {m['date']} on {m['cores']} cores of {m['cpu']}; others kept "
        f"{m['busy_by_others_cores']:.2f} cores busy. {events.FAST.streams} streams of one event a "
        "millisecond behind a stand-in for llama-server, METRICS_PORT scraped once a second, which is 15 "
        f"times as often as docker/prometheus does; {scrape['pairs']} pairs with and without it.\n\n"
        "| | |\n|---|---:|\n"
        f"| a scrape | {scrape['size_kib']} KiB, {scrape['cpu_ms']} ms of processor |\n"
        f"| its time, idle: median, worst | {idle['median']} ms, {idle['worst']} ms |\n"
        f"| its time under the load: median, worst | {loaded['median']} ms, {loaded['worst']} ms |\n"
        f"| events a second: with, without | {speed['with']:.0f}, {speed['without']:.0f} |\n"
        f"| processor time of an event: with, without | {cost['with']} us, {cost['without']} us |"
    )
