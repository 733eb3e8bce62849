"""`llm-sidecar soak [--minutes N] [--clients N] [--url URL [--pid PID]]`: the worst load, and what it did.

Without an address it starts a sidecar of its own, with the settings as they are.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import aiohttp
import uvloop
from rich.console import Console

from sidecar import gpu, room
from sidecar.errors import ConfigError
from sidecar.estimate import Estimate
from sidecar.planning import planned, target_here
from sidecar.progress import Show, shown
from sidecar.registry import load_registry
from sidecar.settings import Settings, load
from sidecar.soak import server as servers
from sidecar.soak.asking import Asking
from sidecar.soak.drive import MOST_CLIENTS, Soak, Told, probed
from sidecar.soak.memory import Cards
from sidecar.soak.mix import asks
from sidecar.soak.report import WARM_UP_REQUESTS, Sizes, Tally, as_json, finished
from sidecar.soak.report_text import show as show_report
from sidecar.soak.server import Server

PROG = "llm-sidecar soak"
SEED = 1
MOST_MINUTES = 10_000.0
NOT_WELL = 1
NICENESS = 5


def soak(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """0 when all is well; 1 for a leak, memory above the budget, or requests that were taken and failed.

    NothingToSoak (69) where no sidecar answers or the one that was started ends. A signal ends the load,
    not the report.
    """
    flags = _flags()
    wanted, others = flags.parse_known_args(argv)
    settings = load(argv, environ, PROG, beside=(flags,))
    extent = Extent(_minutes(wanted.minutes) * 60, _clients(wanted.clients))
    pid, warm_up = _pid(wanted.pid, wanted.url), _warm_up(wanted.warm_up)
    with shown(lambda _: None) as show:
        sizes = Sizes() if wanted.url else _planned(settings, show)
        cards = Cards(others=not wanted.url)
        with _server(_url(wanted.url), pid, others, environ) as server:
            found = uvloop.run(_driven(server, settings, sizes, cards, extent, show))
    report = finished(found.sizes, found.seconds, found.tally, found.probes_ms, warm_up)
    if wanted.json:
        print(json.dumps(as_json(report), indent=2))
    else:
        show_report(Console(highlight=False), report)
    return NOT_WELL if report.failures else 0


def _flags() -> argparse.ArgumentParser:
    """What this command takes besides the settings."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument(
        "--minutes", metavar="N", default="10", help="How long the load lasts, loading apart. Default: 10."
    )
    flags.add_argument(
        "--url", metavar="URL", default="",
        help="A sidecar that runs already, as http://127.0.0.1:8000; without it one is started for this.",
    )  # fmt: skip
    flags.add_argument(
        "--pid", metavar="PID", default="",
        help="The process of the sidecar at --url, if it is on this machine: its memory is looked at then.",
    )  # fmt: skip
    flags.add_argument(
        "--warm-up", metavar="N", default=str(WARM_UP_REQUESTS),
        help=f"Requests before growth counts as a leak. Default: {WARM_UP_REQUESTS}.",
    )  # fmt: skip
    flags.add_argument(
        "--clients", metavar="N", default="",
        help="How many ask at once. Default: as many as it takes that somebody always waits.",
    )  # fmt: skip
    flags.add_argument("--json", action="store_true", help="The report as JSON.")
    return flags


def _minutes(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (minutes := float(text)) <= MOST_MINUTES:
            return minutes
    raise ConfigError(
        f"--minutes {text[:80]!r} can not be used; accepted: a number above 0, {MOST_MINUTES:g} at most"
    )


def _pid(text: str, url: str) -> int | None:
    if not text:
        return None
    if url and (pid := _number(text)):
        return pid
    raise ConfigError(f"--pid {text[:80]!r} can not be used; accepted: a process id, beside --url")


def _warm_up(text: str) -> int:
    if requests := _number(text):
        return requests
    raise ConfigError(f"--warm-up {text[:80]!r} can not be used; accepted: a number of requests, 1 or more")


def _clients(text: str) -> int | None:
    if not text:
        return None
    if 1 <= (clients := _number(text)) <= MOST_CLIENTS:
        return clients
    raise ConfigError(
        f"--clients {text[:80]!r} can not be used; accepted: a number from 1 to {MOST_CLIENTS}, "
        "or nothing for as many as it takes"
    )


def _number(text: str) -> int:
    """0 for what is none, or a longer one than anything here is."""
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _url(text: str) -> str:
    if not text:
        return ""
    with contextlib.suppress(ValueError):
        parts = urlsplit(text.rstrip("/"))
        if parts.scheme == "http" and parts.hostname and not parts.path and parts.port != 0:
            return f"http://{parts.netloc}"
    raise ConfigError(f"--url {text[:80]!r} can not be used; accepted: an address as http://127.0.0.1:8000")


@contextlib.contextmanager
def _server(url: str, pid: int | None, flags: Sequence[str], environ: Mapping[str, str]) -> Iterator[Server]:
    if url:
        yield servers.running(url, pid)
        return
    with servers.started(flags, environ) as server:
        yield server


def _planned(settings: Settings, show: Show) -> Sizes:
    """What the plan says of what is started here."""
    profile = load_registry(settings.profiles_path).select(settings.profile, settings.overrides())
    target = target_here(profile, settings, gpu.look(), room.memory_mib())
    [[found]] = planned([profile], [target], settings.cache_dir, lambda text: show("plan", None, text))
    plan = found.plan if isinstance(found, Estimate) else None
    return Sizes(
        device=target.device,
        budget_mib=None if target.is_all else target.budget_mib,
        plan_mib=None if plan is None else plan.total_mib,
        slots=profile.slots,
    )


@dataclass(frozen=True, slots=True)
class Extent:
    """For how long, and by how many clients at once; None is as many as it takes that somebody waits."""

    seconds: float
    clients: int | None


@dataclass(frozen=True, slots=True)
class Driven:
    """What a load brought, before anything is concluded from it."""

    sizes: Sizes
    seconds: float
    tally: Tally
    probes_ms: list[float | None]


async def _driven(
    server: Server, settings: Settings, sizes: Sizes, cards: Cards, extent: Extent, show: Show
) -> Driven:
    headers = {} if settings.api_key is None else {"authorization": f"Bearer {settings.api_key}"}
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
        asking = Asking(session, server)
        await asking.ready(show)
        sizes = await _told(asking, sizes)
        seen = cards if sizes.device != "cpu" else None
        load = Soak(session, server, asks(SEED, sizes.context), seen, extent.clients)
        with _signals() as stop:
            async with probed(server.url) as probes_ms:
                # The clients give way: on a small machine they would be what the server waits for.
                os.nice(NICENESS)
                took_s = await load.run(extent.seconds, stop, _showing(show, extent.seconds))
    return Driven(sizes, took_s, load.tally, probes_ms)


async def _told(asking: Asking, planned: Sizes) -> Sizes:
    """What the sidecar says of itself, over what was planned for it."""
    said = await asking.sizes()
    assert said.context is not None
    return replace(
        planned,
        device=said.device or planned.device,
        context=said.context,
        slots=said.slots or planned.slots,
        budget_mib=said.budget_mib or planned.budget_mib,
        plan_mib=said.plan_mib or planned.plan_mib,
    )


@contextlib.contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """Set at the first SIGINT or SIGTERM inside the block."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _showing(show: Show, seconds: float) -> Told:
    def told(elapsed: float, tally: Tally) -> None:
        series, peak = (tally.card, None) if tally.card else (tally.engine, tally.engine_peak_mib)
        now = series[-1][2] if series else math.nan
        most = peak or max((mib for _, _, mib in series), default=math.nan)
        speed = tally.tokens / max(elapsed, 1e-9)
        detail = f"{tally.requests} requests, {now:.0f}/{most:.0f} MiB, {speed:.0f} tokens/s"
        show("soak", elapsed / seconds, detail)

    return told
