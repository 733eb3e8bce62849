"""Environment and command line, read through one table into one frozen value.

Command line over environment over default. Blank means not set. The rows of the README and of
`.env.template` are the table in other forms.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from watchdog.breaker import Allowance
from watchdog.config_table import TABLE, Setting
from watchdog.state import Limits

# The sidecar's engine takes up to 5 s to end, and Docker some to notice; Compose grants the container 5 s
# more than this (`stop_grace_period`).
DRAIN_MARGIN_S = 15.0


class ConfigError(Exception):
    """A setting that can not be used: one line that names it, its value and what is accepted."""


@dataclass(frozen=True, slots=True)
class Config:
    """The values, after all sources have been asked. None is not set."""

    limit_mib: float = 10752.0
    interval_s: float = 60.0
    strikes: int = 3
    scope: Literal["own", "card"] = "own"
    reader: Literal["exec", "nvml"] = "exec"
    dry_run: bool = False
    max_restarts: int = 3
    window_s: float = 1800.0
    pause_s: float = 21600.0
    loading_grace_s: float = 1800.0
    probe_timeout_s: float = 10.0
    restart_timeout_s: float | None = None
    drain_s: float = 30.0
    service: str = "llm-sidecar"
    project: str = "llm-sidecar"
    docker_host: str = "unix:///var/run/docker.sock"
    docker_api_version: str | None = None
    control_socket: str = "/run/llm-sidecar/control.sock"
    status_address: str = "127.0.0.1"
    status_port: int = 9101
    log_format: str = "json"

    @property
    def stop_s(self) -> float:
        """How long Docker waits between SIGTERM and SIGKILL."""
        return self.restart_timeout_s or self.drain_s + DRAIN_MARGIN_S

    def limits(self) -> Limits:
        """What the decision needs of all this."""
        return Limits(
            limit_mib=self.limit_mib,
            interval_s=self.interval_s,
            strikes=self.strikes,
            scope=self.scope,
            allowance=Allowance(self.max_restarts, self.window_s, self.pause_s),
            loading_grace_s=self.loading_grace_s,
            restart_timeout_s=self.stop_s,
        )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """One flag for each row that has one."""
    for row in TABLE:
        if not row.flag:
            continue
        shown = f" Default: {default_of(row)}." if default_of(row) else ""
        kind: dict[str, Any] = (
            {"action": "store_const", "const": "1"} if row.switch else {"metavar": row.name}
        )
        text = f"{row.text}{shown} [{row.name}]".replace("%", "%%")
        parser.add_argument(f"--{row.flag}", dest=row.field, help=text, **kind)


def load(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Config:
    """All sources, in order. Raises ConfigError."""
    given: dict[str, Any] = {}
    for row in TABLE:
        flag, text = flags.get(row.field), environ.get(row.name, "").strip()
        if flag is not None:
            given[row.field] = _parsed(row, f"--{row.flag}", flag.strip())
        elif text:
            given[row.field] = _parsed(row, row.name, text)
    found = Config(**given)
    if found.stop_s < found.drain_s + DRAIN_MARGIN_S:
        raise ConfigError(
            f"WATCHDOG_RESTART_TIMEOUT={found.stop_s:g}s can not be used; accepted: at least DRAIN_SECONDS "
            f"({found.drain_s:g}s) and {DRAIN_MARGIN_S:g}s more, or answers would be cut in their drain"
        )
    return found


def default_of(row: Setting) -> str:
    """The default as one would write it; empty when there is none."""
    value = getattr(Config(), row.field)
    if value is None or value is False:
        return ""
    if row.field.endswith("_mib"):
        return f"{value:.0f}MiB"
    if row.field.endswith("_s"):
        return _time(value)
    return str(value)


def _time(seconds: float) -> str:
    if seconds >= 3600 and seconds % 3600 == 0:
        return f"{seconds / 3600:g}h"
    return f"{seconds / 60:g}min" if seconds > 60 and seconds % 60 == 0 else f"{seconds:g}s"


def env_rows() -> str:
    """The rows of `.env.template` that are this program's alone."""
    lines = []
    for row in TABLE:
        if row.owner != "user":
            continue
        default = default_of(row)
        lines += [f"# {row.text}", f"# Accepts {row.accepts}."]
        lines += [f"# {row.name}={shlex.quote(default) if default else ''}", ""]
    return "\n".join(lines)


def readme_table() -> str:
    """The README's table of settings."""
    lines = ["| variable | flag | default | what it does |", "|---|---|---|---|"]
    for row in TABLE:
        flag = f"`--{row.flag}`" if row.flag else ""
        default = f"`{default_of(row)}`" if default_of(row) else ""
        lines.append(f"| `{row.name}` | {flag} | {default} | {row.text} |")
    return "\n".join(lines) + "\n"


def _parsed(row: Setting, name: str, text: str) -> Any:
    try:
        return row.parse(text)
    except ValueError:
        shown = repr(text if len(text) <= 80 else text[:80] + "...")
        raise ConfigError(f"{name}={shown} can not be used; accepted: {row.accepts}") from None
