"""The registry: every model that can be served, and how. The only source of truth.

Reads YAML, knows nothing of engines or of the environment. Everything that can be wrong with the
file or with a choice is one ConfigError of one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sidecar.errors import ConfigError
from sidecar.overrides import Overrides, overridden, own
from sidecar.profiles import EMBEDDED, IN_WORDS, NAME, NAMES, Profile

MAX_FILE_BYTES = 1024 * 1024
MAX_PROFILES = 1000


@dataclass(frozen=True, slots=True)
class Registry:
    """All profiles of one file."""

    path: Path
    profiles: Mapping[str, Profile]

    def select(self, name: str | None, overrides: Overrides | None = None) -> Profile:
        """The profile to serve, overrides applied.

        Without a name it is `embedded`, or one made on the spot when only a model is given.
        """
        over = overrides or Overrides()
        return overridden(self.written(name, over), over)

    def written(self, name: str | None, overrides: Overrides) -> Profile:
        """The profile that `select` starts from, as the file says it."""
        if name is None and overrides.model is not None:
            return own(overrides)
        if name is None and EMBEDDED not in self.profiles:
            raise ConfigError(
                f"no profile is chosen, and {self.path} has no `{EMBEDDED}`; set LLM_PROFILE_NAME to one of "
                "those that `llm-sidecar profiles` lists"
            )
        return self._find(name or EMBEDDED)

    def _find(self, name: str) -> Profile:
        if name in self.profiles:
            return self.profiles[name]
        near = _near(name, self.profiles)
        some = near or sorted(self.profiles)[:5]
        raise ConfigError(
            f"{_shown(name)}: no such profile in {self.path}; {'nearest' if near else 'some of them'}: "
            f"{', '.join(some) or 'none'}; `llm-sidecar profiles` lists all {len(self.profiles)}, "
            "LLM_PROFILE_NAME or --profile chooses one"
        )


def load_registry(path: Path) -> Registry:
    """Read and check the whole file; ConfigError names the profile and the field."""
    data = _read(path)
    profiles = data.get("profiles") if isinstance(data, dict) else None
    if not isinstance(profiles, dict):
        raise ConfigError(f"{path}: no top-level `profiles:` key with profiles under it")
    if len(profiles) > MAX_PROFILES:
        raise ConfigError(f"{path}: more than {MAX_PROFILES} profiles")
    return Registry(path, {str(name): _profile(path, name, p) for name, p in profiles.items()})


class _UniqueKeys(yaml.SafeLoader):
    """The safe loader, without its silent choice between two equal keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                line = node.value[index][0].start_mark.line + 1
                raise ConfigError(f"key {_shown(str(key))} appears twice (line {line})")
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # A few aliases of aliases expand to gigabytes; a registry needs none.
        if self.check_event(yaml.AliasEvent):
            raise ConfigError("aliases (`*name`) are not accepted")
        return super().compose_node(parent, index)


def _read(path: Path) -> object:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
        # A subclass of the safe loader: no tag of the file makes an object.
        return yaml.load(path.read_text("utf-8"), Loader=_UniqueKeys)  # noqa: S506
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message.removeprefix(f'{path}: ')}") from None
    except FileNotFoundError:
        raise ConfigError(f"LLM_PROFILES_CONFIG_PATH={path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can not be read ({type(error).__name__})") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: is not YAML: {_one_line(error)}") from None


def _profile(path: Path, name: object, fields: object) -> Profile:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"{path}: {_shown(str(name))} is no name for a profile; accepted: {NAMES}")
    if not isinstance(fields, dict) or "name" in fields:
        raise ConfigError(f"{path}: profile {name}: a mapping without `name` is expected")
    try:
        return Profile.model_validate({"name": name, **fields})
    except ValidationError as error:
        raise ConfigError(f"{path}: profile {name}: {_first(error)}") from None
    except TypeError:
        raise ConfigError(f"{path}: profile {name}: every key must be text") from None


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(_shown(str(part)).strip("'") for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{where}: there is no such key{_instead(first['loc'])}"
    text = first["msg"].removeprefix("Value error, ")
    if first["type"] == "string_pattern_mismatch":
        text = f"{IN_WORDS[first['ctx']['pattern']]} is expected"
    if first["type"] not in ("missing", "value_error"):
        text = f"{text} (it is {_as_written(first['input'])}{_quoted(first)})"
    return f"{where}: {text}" if where else text


def _as_written(value: object) -> str:
    """The value as a YAML file has it: a text in quotes, a number and a truth value without."""
    if isinstance(value, bool):
        return str(value).lower()
    return _shown(value) if isinstance(value, str) else _shown(str(value)).strip("'")


def _quoted(error: ErrorDetails) -> str:
    """What to do where quotes alone made a text of the value."""
    text, kind = error["input"], error["type"].removesuffix("_type")
    kinds = {"int": (int,), "float": (int, float), "bool": (bool,)}.get(kind, ())
    if isinstance(text, str) and type(_unquoted(text)) in kinds:
        return "; write it without the quotes"
    return ""


def _unquoted(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _instead(where: tuple[int | str, ...]) -> str:
    """The known keys that look like it, in its own block first."""
    here, key = [str(part) for part in where[:-1]], str(where[-1])
    known = {name: ".".join((*block, name)) for block, name in _keys(Profile) if block != tuple(here)}
    known |= {name: name for block, name in _keys(Profile) if block == tuple(here)}
    near = _near(key, known)
    return f"; nearest: {', '.join(known[name] for name in near)}" if near else ""


def _keys(block: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    for name, field in block.model_fields.items():
        if (above, name) != ((), "name"):
            yield above, name
        kinds = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else ()
        for kind in (*kinds, field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _keys(kind, (*above, name))


def _near(name: str, known: Mapping[str, object]) -> list[str]:
    return difflib.get_close_matches(name, known, n=3, cutoff=0.4)


def _shown(value: str) -> str:
    return repr(value if len(value) <= 64 else value[:64] + "...")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
