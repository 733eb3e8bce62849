"""Environment and command line, read through one table into one frozen value.

Command line over environment over profile over default. Blank means not set. The README's table
and `.env.template` are the table in other forms; a test holds them equal.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from sidecar import __version__
from sidecar.errors import ConfigError
from sidecar.overrides import Overrides
from sidecar.profiles import Quantization
from sidecar.settings_parse import Setting
from sidecar.settings_table import TABLE

EXIT_USAGE = 64
EVENTS_NAME = "events.jsonl"
PROFILE_NAME = "The profile, as --profile says it."
DEFAULT_REGISTRY = Path(__file__).resolve().parent.parent / "config" / "llm_profiles.yaml"


@dataclass(frozen=True, slots=True)
class Settings:
    """The values, after all sources have been asked. None is not set.

    `origins` says of each value that was set what set it: a flag (`--port`) or a variable (`PORT`).
    """

    profile: str | None = None
    profiles_path: Path = DEFAULT_REGISTRY
    model_id: str | None = None
    model_path: Path | None = None
    context: int | None = None
    load_in_8bit: bool = False
    load_in_4bit: bool = False
    device: str = "auto"
    threads: int | None = None
    n_gpu_layers: int | None = None
    parallel: int | None = None
    batch_size: int | None = None
    cuda_visible_devices: str | None = None
    llama_server: str | None = None
    cache_dir: Path | None = None
    autoload: bool = False
    auto_quantize: bool = True
    vram_budget_mib: int = 10752
    memory_budget_mib: int | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    publish_address: str | None = None
    publish_port: int | None = None
    metrics_port: int | None = None
    control_socket: Path | None = None
    events_file: Path | None = None
    max_queue: int = 32
    queue_timeout_s: float = 60.0
    queue_patience_s: float = 2.0
    drain_s: float = 30.0
    log_format: str = "plain"
    log_prompts: bool = False
    fallback: bool = False
    fallback_per_hour: int = 20
    together_api_key: str | None = None
    together_model: str | None = None
    together_base_url: str = "https://api.together.ai/v1"
    openai_api_key: str | None = None
    openai_model: str | None = None
    openai_base_url: str = "https://api.openai.com/v1"
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def reached_at(self) -> str:
        """The address under which people reach the service."""
        return self.publish_address or self.host

    @property
    def events_path(self) -> Path | None:
        """The file of events: the one that was named, or the one beside the control socket."""
        beside = None if self.control_socket is None else self.control_socket.with_name(EVENTS_NAME)
        return self.events_file or beside

    def overrides(self) -> Overrides:
        """What stands over the profile."""
        bits: Quantization | None = "8bit" if self.load_in_8bit else None
        bits = "4bit" if self.load_in_4bit else bits
        return Overrides(
            context=self.context,
            model_id=self.model_id,
            model_path=self.model_path,
            quantization=bits,
            n_gpu_layers=self.n_gpu_layers,
            threads=self.threads,
            parallel=self.parallel,
            batch_size=self.batch_size,
        )


def load(
    argv: Sequence[str],
    environ: Mapping[str, str],
    prog: str = "server.py",
    *,
    name: str = "",
    beside: Sequence[argparse.ArgumentParser] = (),
) -> Settings:
    """All sources, in order. ConfigError for the environment; exit 64 for the command line.

    `prog` is what help and errors call the program. One argument may be the profile where `name` is what
    the help says of it.
    `beside` are parsers of flags that a command has besides ours; they are accepted, and not read here.
    """
    parser = _parser(prog, name, beside)
    flags = vars(parser.parse_args(argv))
    if named := flags.pop("name", None):
        if flags["profile"] not in (None, named):
            parser.error(
                f"{_shown(named)} and --profile {_shown(flags['profile'])} are two profiles; name one"
            )
        flags["profile"] = named
    given: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for row in TABLE:
        if flags.get(row.field) is not None:
            given[row.field] = _from_flag(parser, row, flags[row.field])
            origins[row.field] = f"--{row.flag}"
        elif (found := _from_environ(row, environ, given.get("profile"))) is not None:
            origins[row.field], given[row.field] = found
    if given.get("load_in_8bit") and given.get("load_in_4bit"):
        raise ConfigError("LOAD_IN_8BIT and LOAD_IN_4BIT exclude each other; set one of them")
    return Settings(**given, origins=origins)


def default_of(row: Setting) -> str:
    """The default as one would write it; empty when there is none."""
    value = getattr(Settings(), row.field)
    if value is None or value is False or value == ():
        return ""
    if value is True:
        return "1"
    if isinstance(value, Path):
        return "config/llm_profiles.yaml"
    if row.field.endswith("_mib"):
        return f"{value}MiB"
    return f"{value:g}" if isinstance(value, float) else str(value)


def env_template() -> str:
    """`.env.template`: every variable commented out, with what it does and accepts."""
    lines = [
        "# Copy to .env and uncomment what should differ. Blank means not set.",
        "# docker compose reads it; by hand: set -a; . ./.env; set +a",
        "",
    ]
    for row in TABLE:
        lines.append(f"# {row.text}")
        others = f" Also: {', '.join(row.names[1:])}." if len(row.names) > 1 else ""
        lines.append(f"# Accepts {row.accepts}.{others}")
        lines.append(f"# {row.names[0]}={_in_shell(default_of(row))}")
        lines += [f"# {row.example}", ""] if row.example else [""]
    lines += [
        "# Read by the hub's own client: a token for models that need one.",
        "# HF_TOKEN=",
    ]
    return "\n".join(lines) + "\n"


def _in_shell(value: str) -> str:
    """The value as bash reads it; docker compose understands the same quotes."""
    return shlex.quote(value) if value else ""


def readme_table() -> str:
    """The README's table of settings."""
    lines = ["| variable | flag | default | what it does |", "|---|---|---|---|"]
    for row in TABLE:
        names = ", ".join(f"`{name}`" for name in row.names)
        flag = f"`--{row.flag}`" if row.flag else ""
        default = f"`{default_of(row)}`" if default_of(row) else ""
        lines.append(f"| {names} | {flag} | {default} | {row.text} |")
    return "\n".join(lines) + "\n"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (--help lists the flags)\n")


def _parser(prog: str, name: str, beside: Sequence[argparse.ArgumentParser] = ()) -> _Parser:
    parser = _Parser(
        prog=prog,
        parents=beside,
        description=None if name else "Serve one language model beside your application.",
        epilog="Each flag has an environment variable, named in brackets; the flag wins.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    if name:
        parser.add_argument("name", metavar="NAME", nargs="?", help=name)
    for row in TABLE:
        if row.flag is None:
            continue
        shown = f" Default: {default_of(row)}." if default_of(row) else ""
        text = f"{row.text}{shown} [{row.names[0]}]".replace("%", "%%")
        parser.add_argument(*_spellings(row.flag), dest=row.field, help=text, **_kind(row))
    return parser


def _spellings(flag: str) -> list[str]:
    return list(dict.fromkeys([f"--{flag}", f"--{flag.replace('_', '-')}"]))


def _kind(row: Setting) -> dict[str, Any]:
    if row.switch:
        return {"action": "store_const", "const": "1"}
    return {"metavar": row.names[0]}


def _from_flag(parser: _Parser, row: Setting, text: str) -> Any:
    try:
        return row.parse(text.strip())
    except ValueError:
        parser.error(f"--{row.flag}: {_shown(text)} can not be used; accepted: {row.accepts}")


def _from_environ(row: Setting, environ: Mapping[str, str], profile: str | None) -> tuple[str, Any] | None:
    """The first name that is set, and its value."""
    found = {
        name: environ[name].strip()
        for name in row.names
        if environ.get(name, "").strip() and _applies(name, profile)
    }
    values = {name: _parsed(row, name, text) for name, text in found.items()}
    for name, value in values.items():
        first = next(iter(values))
        if value != values[first]:
            raise ConfigError(
                f"{first}={_shown(found[first])} and {name}={_shown(found[name])} are two names of "
                "one setting with different values; set one of them"
            )
    return next(iter(values.items()), None)


def _parsed(row: Setting, name: str, text: str) -> Any:
    try:
        return row.parse(text)
    except ValueError:
        shown = "(not shown)" if row.field.endswith("api_key") else _shown(text)
        raise ConfigError(f"{name}={shown} can not be used; accepted: {row.accepts}") from None


def _applies(name: str, profile: str | None) -> bool:
    return name != "HERMES_CTX" or (profile or "").startswith("hermes-")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "...")
