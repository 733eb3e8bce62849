"""What documents name, held to what there is: routes, commands, variables, keys of profiles."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from sidecar.api import create_app
from sidecar.cli import COMMANDS
from sidecar.gate import Gate
from sidecar.metrics import Metrics
from sidecar.profiles import Gpu, LlamaCpp, Profile, Transformers
from sidecar.registry import load_registry
from sidecar.service import Service
from sidecar.settings import DEFAULT_REGISTRY
from sidecar.settings_table import TABLE
from sidecar.shelf import ServedModel, only
from tests.deploy.test_compose import compose, filled
from tests.fakes.engine import ScriptedEngine
from tools.env_template import TEMPLATE
from watchdog import config_table

ROOT = Path(__file__).parents[2]
VARIABLE = re.compile(r"([A-Z][A-Z0-9_]+)(?:=(.*))?")
# Commands of the sidecar that take a profile's name.
OF_A_PROFILE = ("plan", "check", "download")
# Read by the hub's own client, and set by the sidecar for its child.
OF_OTHERS = frozenset({"HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT", "CUDA_VISIBLE_DEVICES"})


@cache
def routes() -> frozenset[tuple[str, str]]:
    """Method and path of all that is served."""
    metrics, model = Metrics(CollectorRegistry()), ServedModel("m")
    service = Service(only(model, ScriptedEngine()), model, Gate(), metrics)
    paths = create_app(service, metrics).openapi()["paths"]
    return frozenset({(verb.upper(), path) for path in paths for verb in paths[path]} | {("GET", "/docs")})


@cache
def make_targets() -> frozenset[str]:
    """What `make` can be asked for."""
    return frozenset(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@cache
def variables() -> frozenset[str]:
    """What may be set: for both programs, the compose files, the hub's client and the examples."""
    lines = re.findall(r"(?m)^# (?:([A-Z0-9_]+)=|.*Also: (.*)\.$)", TEMPLATE.read_text())
    found = {name for pair in lines for words in pair for name in words.split(", ")}
    found |= {name for row in TABLE for name in row.names} | {row.name for row in config_table.TABLE}
    for example in (ROOT / "examples").rglob("*.py"):
        found |= set(re.findall(r'"([A-Z][A-Z0-9_]+)"', example.read_text()))
    return frozenset(found - {""} | OF_OTHERS)


@cache
def profile_keys() -> frozenset[str]:
    """Keys of a profile, those of its blocks as `block.key`."""
    blocks: tuple[tuple[str, type[BaseModel]], ...] = (
        ("", Profile), ("gpu.", Gpu), ("llamacpp.", LlamaCpp), ("transformers.", Transformers),
    )  # fmt: skip
    return frozenset(f"{above}{key}" for above, block in blocks for key in block.model_fields)


def unknown(said: str) -> list[str]:
    """What of a command, a route, a variable or a key is not there."""
    if route := re.fullmatch(r"([A-Z]+) (/\S*)", said):
        return [] if (route[1], route[2]) in routes() else [said]
    if said in profile_keys():
        return []
    words, found = shlex.split(said), []
    while words and (variable := VARIABLE.fullmatch(words[0])):
        found += _unknown_variable(variable[1], variable[2])
        del words[0]
    return found if not words else [*found, *_unknown_command(words)]


def _unknown_variable(name: str, value: str | None) -> list[str]:
    if name not in variables():
        return [name]
    if name == "LLM_PROFILE_NAME" and value is not None:
        return _unknown_profile(value)
    return []


def _unknown_profile(name: str) -> list[str]:
    return [] if name in load_registry(DEFAULT_REGISTRY).profiles else [name]


def _unknown_command(words: list[str]) -> list[str]:
    for spelling, check in PROGRAMS.items():
        if words[: len(spelling)] == list(spelling):
            return check(words[len(spelling) :])
    if words[0].startswith("./"):
        return _unknown_files(words[:1])
    return [words[0]]


def _of_sidecar(words: list[str]) -> list[str]:
    command = words[0]
    if command not in COMMANDS:
        return [command]
    names = [word for word in words[1:2] if command in OF_A_PROFILE and word[0] != "-" and "://" not in word]
    return [*(bad for name in names for bad in _unknown_profile(name)), *_unknown_flags(words, "sidecar")]


@cache
def _code(package: str) -> str:
    return "".join(path.read_text() for path in (ROOT / package).rglob("*.py"))


def _unknown_flags(words: list[str], package: str) -> list[str]:
    """Flags that no line of the package spells, nor its table of settings."""
    code = _code(package)
    flags = [word for word in words if word.startswith("--")]
    return [flag for flag in flags if f'"{flag}"' not in code and f'"{flag[2:]}"' not in code]


def _unknown_files(words: list[str]) -> list[str]:
    return [word for word in words if not (ROOT / word).exists()]


def _of_script(words: list[str]) -> list[str]:
    if words[0] == "scripts/benchmark.py":
        return [*_unknown_files(words[:1]), *_unknown_flags(words, "sidecar/bench")]
    return _unknown_files([word for word in words if "/" in word or word.endswith(".py")])


def _of_curl(words: list[str]) -> list[str]:
    path = re.fullmatch(r"http://localhost:\d+(/\S*)", words[-1])
    return [] if path and ("GET", path[1]) in routes() else words[-1:]


def _of_compose(words: list[str]) -> list[str]:
    """Files, profiles and services of one `docker compose`."""
    said: dict[str, list[str]] = {"-f": [], "--profile": [], "--env-file": []}
    while words and words[0] in said:
        said[words[0]].append(words[1])
        words = words[2:]
    files = [name for name in said["-f"] or ["compose.yaml"] if name != "compose.yaml" or said["-f"]]
    missing = _unknown_files(files)
    if missing:
        return missing
    services = dict(_services(files))
    profiles = {name for told in services.values() for name in told.get("profiles") or ()}
    named = [word for word in words[1:] if not word.startswith("-")]
    return sorted((set(said["--profile"]) - profiles) | (set(named) - set(services)))


def _services(files: list[str]) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Of overlays what they lay over comes last, since that says the profiles."""
    for name in reversed(files or ["compose.yaml"]):
        read = compose(name)
        for included in read.get("include", ()):
            yield from compose(included)["services"].items()
        yield from read.get("services", {}).items()


def _of_docker(words: list[str]) -> list[str]:
    """A container or an image that the compose files name; for `build`, the file."""
    if words[0] == "build":
        return _unknown_files([words[words.index("-f") + 1]])
    told = [compose(path.as_posix()) for path in ROOT.glob("docker/compose*.yaml")]
    services = [filled(service) for file in told for service in file["services"].values()]
    names = {service.get(key) for service in services for key in ("container_name", "image")}
    return [] if names & set(words) else words[-1:]


PROGRAMS: dict[tuple[str, ...], Callable[[list[str]], list[str]]] = {
    ("llm-sidecar",): _of_sidecar,
    ("make",): lambda words: sorted(set(words) - make_targets()),
    ("docker", "compose"): _of_compose,
    ("docker",): _of_docker,
    ("python", "server.py"): lambda words: _unknown_flags(words, "sidecar"),
    ("python", "-m", "watchdog"): lambda words: _unknown_flags(words, "watchdog"),
    ("python",): _of_script,
    ("curl",): _of_curl,
    ("cp",): lambda words: _unknown_files(words[:1]),
}
