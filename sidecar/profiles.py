"""The registry: every model that can be served, and how. The only source of truth.

Reads YAML, knows nothing of engines or of the environment. Everything that can be wrong with the
file or with a choice is one ConfigError of one line.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sidecar.errors import ConfigError

MAX_FILE_BYTES = 1024 * 1024
MAX_PROFILES = 1000
OWN_CONTEXT = 4096
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Quantization = Literal["auto", "none", "8bit", "4bit"]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class Gpu(_Block):
    """How much of which cards. `max_model_len` is the context, prompt and answer together."""

    num_gpus: Annotated[int, Field(ge=0, le=64)] = 1
    tensor_parallel_size: Count = 1
    device_ids: list[Annotated[int, Field(ge=0)]] = []
    max_model_len: Count = OWN_CONTEXT
    max_batch_tokens: Count = 512
    max_concurrent_requests: Count = 8
    gpu_memory_fraction: Annotated[float, Field(gt=0, le=1)] = 0.9


class LlamaCpp(_Block):
    """What llama-server is started with. Kept as it is in the registries that exist."""

    model_root: str = ""
    hf_repo_id: str = ""
    hf_filename: str = ""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    ctx_size: Count | None = None
    n_gpu_layers: Annotated[int, Field(ge=-1)] | None = None
    threads: Count | None = None
    parallel: Count | None = None
    batch_size: Count | None = None


class Transformers(_Block):
    """Where the weights come from, in order, and how they are held.

    A source is `embedded`, a local folder, or a hub id with an optional `@revision`.
    `kv_tokens` sizes the KV pool; without it the pool takes what the budget leaves.
    """

    sources: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    quantization: Quantization = "auto"
    default_max_tokens: Count = 1024
    kv_tokens: Count | None = None
    page_tokens: Count | None = None


class Profile(_Block):
    """One model that can be served. `model_id` is its label in the API."""

    name: str
    display_name: str = ""
    task_type: Literal["chat", "completion", "embedding"] = "chat"
    backend: Literal["transformers", "llamacpp"]
    model_id: Annotated[str, Field(min_length=1, max_length=200)]
    supports_tools: bool = False
    supports_embeddings: bool = False
    supports_vision: bool = False
    gpu: Gpu = Gpu()
    llamacpp: LlamaCpp | None = None
    transformers: Transformers | None = None

    @model_validator(mode="after")
    def _backend_has_its_block(self) -> Profile:
        if getattr(self, self.backend) is None:
            raise ValueError(f"backend `{self.backend}` needs a `{self.backend}:` block")
        return self

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""
        return self.gpu.max_model_len


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line and the environment say over the profile; None is nothing."""

    context: int | None = None
    model_id: str | None = None
    model_path: Path | None = None
    quantization: Quantization | None = None


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
        if name is None and (over.model_id or over.model_path):
            return _apply(_own(over), over)
        return _apply(self._find(name or "embedded"), over)

    def _find(self, name: str) -> Profile:
        if name in self.profiles:
            return self.profiles[name]
        near = difflib.get_close_matches(name, self.profiles, n=3, cutoff=0.4)
        listed = near or sorted(self.profiles)[:5]
        raise ConfigError(
            f"LLM_PROFILE_NAME={_shown(name)}: no such profile in {self.path}; "
            f"{'nearest' if near else 'there are'}: {', '.join(listed) or 'none'}"
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
        raise ConfigError(f"{path}: {_shown(str(name))} is no name for a profile: {NAME.pattern}")
    if not isinstance(fields, dict) or "name" in fields:
        raise ConfigError(f"{path}: profile {name}: a mapping without `name` is expected")
    try:
        return Profile.model_validate({"name": name, **fields})
    except ValidationError as error:
        raise ConfigError(f"{path}: profile {name}: {_first(error)}") from None
    except TypeError:
        raise ConfigError(f"{path}: profile {name}: every key must be text") from None


def _own(over: Overrides) -> Profile:
    source = str(over.model_path or over.model_id)
    label = Path(source.partition("@")[0]).name if over.model_path else source.partition("@")[0]
    return Profile(
        name="own",
        display_name=source,
        backend="transformers",
        model_id=label[:200] or "model",
        gpu=Gpu(max_model_len=_context_of(over.model_path)),
        transformers=Transformers(sources=[source]),
    )


def _apply(profile: Profile, over: Overrides) -> Profile:
    if over.model_path is not None:
        _check_path(over.model_path)
    if profile.backend == "llamacpp":
        raise ConfigError(
            f"profile {profile.name}: backend `llamacpp` is not available in this version; "
            "choose a profile with backend `transformers`"
        )
    assert profile.transformers is not None
    block: dict[str, Any] = {}
    if source := over.model_path or over.model_id:
        block["sources"] = [str(source)]
    if over.quantization is not None:
        block["quantization"] = over.quantization
    gpu = {"max_model_len": over.context} if over.context is not None else {}
    return profile.model_copy(
        update={
            "transformers": profile.transformers.model_copy(update=block),
            "gpu": profile.gpu.model_copy(update=gpu),
        }
    )


def _check_path(path: Path) -> None:
    if path.suffix == ".gguf":
        raise ConfigError(
            f"MODEL_PATH={path}: GGUF files need the llamacpp backend, which is not available in "
            "this version; give a folder with config.json and *.safetensors"
        )
    if not (path / "config.json").is_file():
        raise ConfigError(f"MODEL_PATH={path}: a folder with config.json and *.safetensors is expected")


def _context_of(path: Path | None) -> int:
    """What the model was made for, but no more than a modest default."""
    try:
        config = json.loads((path / "config.json").read_text("utf-8")) if path else {}
        made_for = config["max_position_embeddings"]
    except (OSError, ValueError, LookupError, TypeError):
        return OWN_CONTEXT
    usable = isinstance(made_for, int) and made_for > 0
    return min(OWN_CONTEXT, made_for) if usable else OWN_CONTEXT


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(_shown(str(part)).strip("'") for part in first["loc"])
    text = first["msg"].removeprefix("Value error, ")
    return f"{where}: {text}" if where else text


def _shown(value: str) -> str:
    return repr(value if len(value) <= 64 else value[:64] + "...")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
