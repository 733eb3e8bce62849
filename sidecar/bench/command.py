"""`llm-sidecar bench [--url URL] [--requests N] ... | --compare A.json B.json`: how fast a server answers."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from sidecar.bench import figures, plot
from sidecar.bench.load import Told, run
from sidecar.bench.outcome import Outcome, Wanted
from sidecar.bench.report_text import show, show_compared
from sidecar.errors import ConfigError
from sidecar.listening import url_of
from sidecar.progress import Show, shown
from sidecar.server_check import ADDRESS, base_url, model_of
from sidecar.settings import Settings, load

PROG = "llm-sidecar bench"
SOME_FAILED = 1


def bench(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """0 when every request was answered, 1 when one or more failed; of --compare always 0.

    ConfigError for a file or a picture that can not be used.
    """
    flags = _flags()
    # First the settings: their parser's own way of saying no is a line and exit code 64.
    settings = load(argv, environ, PROG, beside=(flags,))
    asked, _ = flags.parse_known_args(argv)
    if asked.plot:
        plot.check(asked.plot)
    return _compared(asked) if asked.compare else _measured(asked, settings)


def _flags() -> argparse.ArgumentParser:
    """What this command takes besides the settings."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument(
        "--url", type=_url, metavar="URL",
        help="A server of OpenAI's API, as http://127.0.0.1:8000. Default: the sidecar of HOST and PORT.",
    )  # fmt: skip
    flags.add_argument("--model", metavar="ID", help="Default: the first of its /v1/models.")
    for name, default, text in (
        ("requests", 20, "How many in all."),
        ("concurrency", 4, "How many at once."),
        ("max-tokens", 100, "The longest answer."),
    ):
        flags.add_argument(
            f"--{name}", type=_count, default=default, metavar="N", help=f"{text} Default: {default}."
        )
    flags.add_argument("--prompt", metavar="TEXT", help="What is asked; by default each request differs.")
    flags.add_argument("--json", action="store_true", help="The report as JSON.")
    flags.add_argument(
        "--compare", nargs=2, metavar=("A.json", "B.json"), help="No load: two reports, and which is faster."
    )
    flags.add_argument("--plot", metavar="out.png", help="The percentiles as a picture (needs matplotlib).")
    return flags


def _count(text: str) -> int:
    if text.isdecimal() and 0 < int(text) <= 1_000_000:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"{text[:80]!r} can not be used; accepted: a whole number from 1 to 1000000"
    )


def _url(text: str) -> str:
    if (url := base_url(text)) is None:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} can not be used; accepted: {ADDRESS}")
    return url


def _measured(asked: argparse.Namespace, settings: Settings) -> int:
    url = asked.url or url_of(settings.host, settings.port)
    model = asked.model or model_of(url, settings.api_key)
    wanted = Wanted(
        url, asked.requests, asked.concurrency, asked.max_tokens, asked.prompt, model, settings.api_key
    )
    with shown(partial(print, file=sys.stderr)) as told:
        report = figures.report(wanted, model, uvloop.run(run(wanted, _showing(told, wanted.requests))))
    _say(asked, report, partial(show, report=report))
    if asked.plot:
        plot.draw(asked.plot, [(url, report)])
    return SOME_FAILED if report["failed"] else 0


def _compared(asked: argparse.Namespace) -> int:
    names: tuple[str, str] = tuple(asked.compare)
    a, b = (_read(name) for name in names)
    told = {
        "schema": figures.SCHEMA,
        "figures": figures.compare(a, b),
        "not_alike": figures.differences(a, b),
    }
    _say(asked, told, partial(show_compared, names=names, a=a, b=b))
    if asked.plot:
        plot.draw(asked.plot, list(zip(names, (a, b), strict=True)))
    return 0


def _read(name: str) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return figures.checked(json.loads(Path(name).read_text("utf-8")), name)
    raise ConfigError(f"{name} can not be read as JSON; accepted: what `{PROG} --json` prints")


def _say(asked: argparse.Namespace, told: Mapping[str, Any], as_text: Callable[[Console], None]) -> None:
    if asked.json:
        print(json.dumps(told, indent=2))
    else:
        as_text(Console(highlight=False, soft_wrap=True))


def _showing(show: Show, requests: int) -> Told:
    over = failed = events = 0

    def told(outcome: Outcome, seconds: float) -> None:
        nonlocal over, failed, events
        over, failed = over + 1, failed + (outcome.error is not None)
        events += len(outcome.events_at_s)
        speed = f"{events / max(seconds, 1e-9):.0f} events/s"
        show(
            "bench", over / requests, f"{over}/{requests}, {speed}" + (f", {failed} failed" if failed else "")
        )

    return told
