"""The one table of what can be set: names, flag, what is accepted, what it does.

A row says how a text becomes a value; where the text comes from is `watchdog.config`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(GiB|GB|G|MiB|MB|M)", re.IGNORECASE)
_TIME = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*(s|min|m|h)?", re.IGNORECASE)
_UNITS_S = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Setting:
    """One row. `owner` says who sets it: the user for this program alone, for the sidecar too
    (`shared`: it stands in the sidecar's part of `.env.template`), or the Compose files."""

    field: str
    name: str
    parse: Callable[[str], Any]
    accepts: str
    text: str
    flag: str = ""
    switch: bool = False
    owner: Literal["user", "shared", "compose"] = "user"


def size_mib(text: str) -> float:
    """`10.5GiB`, `10752MiB`; GB means GiB, as in `10.5 GB = 10752 MiB`. Never a bare number."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(text)
    mib = float(found[1]) * (1024 if found[2][0] in "gG" else 1)
    if not 1 <= mib <= 2**24:
        raise ValueError(text)
    return mib


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        found = _TIME.fullmatch(text)
        if found is None or not text.isascii():
            raise ValueError(text)
        seconds = float(found[1]) * _UNITS_S[(found[2] or "s").lower()]
        if not low <= seconds <= high:
            raise ValueError(text)
        return seconds

    return parse


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or not low <= int(text) <= high:
            raise ValueError(text)
        return int(text)

    return parse


def _matching(pattern: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(text)
        return text

    return parse


def _truth(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError(text)


_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"

TABLE: tuple[Setting, ...] = (
    Setting(
        "limit_mib",
        "VRAM_BUDGET",
        size_mib,
        "a size with its unit, such as 10.5GiB or 10752MiB",
        "The memory of the card that is never exceeded; above it, readings count as strikes.",
        "vram-budget",
        owner="shared",
    ),
    Setting(
        "interval_s",
        "WATCHDOG_INTERVAL",
        _seconds(1, 3600),
        "a time from 1s to 1h, such as 60s",
        "The time between two looks.",
        "interval",
    ),
    Setting(
        "strikes",
        "WATCHDOG_STRIKES",
        _whole(1, 100),
        "a number from 1 to 100",
        "How many readings in a row above the limit, on one card, are a reason to restart.",
        "strikes",
    ),
    Setting(
        "scope",
        "WATCHDOG_SCOPE",
        _matching("own|card"),
        "own or card",
        "own: a restart only if the sidecar's own memory is over, where it can be told; card: always.",
        "scope",
    ),
    Setting(
        "reader",
        "WATCHDOG_READER",
        _matching("exec|nvml"),
        "exec or nvml",
        "exec: nvidia-smi in the sidecar's container; nvml: the driver's library in the watchdog's own.",
        "reader",
    ),
    Setting(
        "dry_run",
        "WATCHDOG_DRY_RUN",
        _truth,
        "1 or 0",
        "Restart nothing and ask the sidecar for nothing, but say what would have been done.",
        "dry-run",
        switch=True,
    ),
    Setting(
        "max_restarts",
        "WATCHDOG_MAX_RESTARTS",
        _whole(1, 100),
        "a number from 1 to 100",
        "How many restarts may fall into one window; then it only alerts.",
        "max-restarts",
    ),
    Setting(
        "window_s",
        "WATCHDOG_WINDOW",
        _seconds(60, 86400),
        "a time from 1min to 24h, such as 30min",
        "The window of WATCHDOG_MAX_RESTARTS.",
        "window",
    ),
    Setting(
        "pause_s",
        "WATCHDOG_PAUSE",
        _seconds(60, 604800),
        "a time from 1min to 168h, such as 6h",
        "How long it only alerts when the restarts are spent; then it tries once.",
        "pause",
    ),
    Setting(
        "loading_grace_s",
        "WATCHDOG_LOADING_GRACE",
        _seconds(0, 86400),
        "a time up to 24h, such as 30min",
        "How long readings do not count while the sidecar says that it loads or drains.",
        "loading-grace",
    ),
    Setting(
        "probe_timeout_s",
        "WATCHDOG_PROBE_TIMEOUT",
        _seconds(1, 60),
        "a time from 1s to 1min, such as 10s",
        "How long one reading may take before it is unknown.",
        "probe-timeout",
    ),
    Setting(
        "restart_timeout_s",
        "WATCHDOG_RESTART_TIMEOUT",
        _seconds(1, 3600),
        "a time up to 1h, at least 15s longer than DRAIN_SECONDS",
        "How long Docker waits after SIGTERM; DRAIN_SECONDS and 15s more when not set.",
        "restart-timeout",
    ),
    Setting(
        "drain_s",
        "DRAIN_SECONDS",
        _seconds(0, 3600),
        "a number of seconds, up to 3600",
        "How long running answers may go on after SIGTERM.",
        owner="shared",
    ),
    Setting(
        "service",
        "WATCHDOG_SERVICE",
        _matching(_NAME),
        "the name of a service",
        "The Compose service whose container is watched.",
        "service",
    ),
    Setting(
        "project",
        "COMPOSE_PROJECT_NAME",
        _matching(_NAME),
        "the name of a Compose project",
        "The Compose project of that service.",
        "project",
        owner="compose",
    ),
    Setting(
        "docker_host",
        "DOCKER_HOST",
        _matching(r"unix:///[^\s?#]{1,100}|tcp://[A-Za-z0-9.-]{1,255}:\d{1,5}"),
        "unix:///path/of/a.sock or tcp://host:port",
        "Where the Docker Engine listens.",
        "docker-host",
        owner="compose",
    ),
    Setting(
        "docker_api_version",
        "DOCKER_API_VERSION",
        _matching(r"1\.\d{1,3}"),
        "a version such as 1.44",
        "The engine's API version; found out when not set.",
        "docker-api-version",
    ),
    Setting(
        "control_socket",
        "CONTROL_SOCKET",
        _matching(r"/[^\s]{1,100}"),
        "the path of a unix socket",
        "Where the sidecar tells its own memory and phase.",
        "control-socket",
        owner="compose",
    ),
    Setting(
        "status_address",
        "WATCHDOG_STATUS_ADDRESS",
        _matching(r"[A-Za-z0-9.:-]{1,255}"),
        "an address",
        "Where the watchdog's own /health, /metrics and /events listen.",
        "status-address",
        owner="compose",
    ),
    Setting(
        "status_port",
        "WATCHDOG_STATUS_PORT",
        _whole(1, 65535),
        "a number from 1 to 65535",
        "The port of /health, /metrics and /events.",
        "status-port",
    ),
    Setting(
        "log_format",
        "LOG_FORMAT",
        _matching("plain|json"),
        "plain or json",
        "The form of the log's lines.",
        "log-format",
        owner="shared",
    ),
)
