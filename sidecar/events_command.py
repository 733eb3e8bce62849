"""`llm-sidecar events [--url URL] [--json] [--follow]`: what happened to the memory and the engine, and why.

Asks the server; where none answers, reads the file that it kept.
"""

from __future__ import annotations

import argparse
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from sidecar.errors import ConfigError
from sidecar.events import Event, read
from sidecar.listening import url_of
from sidecar.settings import Settings, load

PROG = "llm-sidecar events"
ASK_SECONDS = 5.0
FOLLOW_SECONDS = 1.0
BODY_BYTES = 16 * 1024 * 1024
COLUMNS = "{:<19}  {:<15} {:<9} {:>9} {:>9}  {}"

Ask = Callable[[], list[Event]]


def events(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Print them, the newest last; with --follow until Ctrl-C."""
    flags = _flags()
    wanted, _ = flags.parse_known_args(argv)
    settings = load(argv, environ, PROG, beside=(flags,))
    url = (wanted.url or url_of(settings.host, settings.port)).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(
            f"--url={wanted.url!r} can not be used; accepted: an address as http://127.0.0.1:8000"
        )

    def ask() -> list[Event]:
        return known(url, settings)

    shown = as_json if wanted.json else as_table
    found = followed(ask) if wanted.follow else ask()
    for line in shown(found):
        print(line, flush=True)
    return 0


def known(url: str, settings: Settings) -> list[Event]:
    """What the server says; where nobody answers, its file. Raises ConfigError where there is neither."""
    try:
        return _asked(url, settings.api_key)
    except urllib.error.HTTPError as error:
        why = "the key is wrong: set API_KEY" if error.code == 401 else f"it answers {error.code}"
        raise ConfigError(f"{url}/events can not be read: {why}") from None
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        path = settings.events_path
        if path is not None and path.exists():
            return read(path)
        kept = "no file of events is named" if path is None else f"{path} is not there"
        raise ConfigError(
            f"{url}: nobody answers ({_reason(error)}), and {kept}; name the server with --url, or its file "
            "with EVENTS_FILE"
        ) from None


def followed(ask: Ask) -> Iterator[Event]:
    """Those that are there, then each new one. A server that is away for a while is waited for."""
    seen: set[tuple[str, int]] = set()
    found = ask()
    while True:
        for event in found:
            if (event["boot_id"], event["id"]) not in seen:
                seen.add((event["boot_id"], event["id"]))
                yield event
        time.sleep(FOLLOW_SECONDS)
        try:
            found = ask()
        except ConfigError:
            found = []


def as_json(found: Iterable[Event]) -> Iterator[str]:
    """A line for each."""
    return (json.dumps(dict(event)) for event in found)


def as_table(found: Iterable[Event]) -> Iterator[str]:
    """A line for each, as a person reads it: when, what, who, the memory then, what came free, why."""
    yield COLUMNS.format("time (UTC)", "what", "who", "own MiB", "freed", "").rstrip()
    for event in found:
        when = str(event["time"])[:19].replace("T", " ")
        what = str(event["kind"]).replace("_", " ")
        yield COLUMNS.format(
            when, what, event["by"], _own(event), _mib(event.get("freed_mib")), event["text"]
        )


def _own(event: Event) -> str:
    own = event.get("own_mib")
    # Where we could not tell ourselves, what the watchdog saw.
    return _mib(own if own is not None else event.get("before_mib"))


def _mib(value: object) -> str:
    return f"{value:.0f}" if isinstance(value, int | float) else ""


def _asked(url: str, api_key: str | None) -> list[Event]:
    request = urllib.request.Request(f"{url}/events")  # noqa: S310 - the address is the user's own
    if api_key is not None:
        request.add_header("authorization", f"Bearer {api_key}")
    # A proxy of the environment does not stand between us and our own server.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=ASK_SECONDS) as answer:
        found: list[Event] = json.loads(answer.read(BODY_BYTES))["events"]
    return found


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__


def _flags() -> argparse.ArgumentParser:
    """What this command takes besides the settings."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--url", metavar="URL", default="", help="The server; HOST and PORT when not said.")
    flags.add_argument("--json", action="store_true", help="A line of JSON for each event.")
    flags.add_argument("--follow", action="store_true", help="Go on with each new one.")
    return flags
