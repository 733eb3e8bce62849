"""What the command line and the environment say over a profile. Pure, but for a look at a folder."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sidecar.errors import ConfigError
from sidecar.profiles import (
    OWN,
    OWN_CONTEXT,
    Gpu,
    LlamaCpp,
    Profile,
    Quantization,
    Transformers,
)

GGUF_ID = re.compile(r"(?P<repository>[^@:]+)(@(?P<revision>[^:]+))?:(?P<file>.+\.gguf)")
# What a profile says of its own model is not said of another one.
ANOTHER: dict[str, Any] = {"vram_mib": None, "description": ""}


@dataclass(frozen=True, slots=True)
class Overrides:
    """None is nothing said. `context` is one request's, as in the profile.

    `model_id` is a hub id, `owner/name[@revision]`, or a file of one, `owner/name[@revision]:file.gguf`.
    """

    context: int | None = None
    model_id: str | None = None
    model_path: Path | None = None
    quantization: Quantization | None = None
    n_gpu_layers: int | None = None
    threads: int | None = None
    parallel: int | None = None
    batch_size: int | None = None

    @property
    def without_model(self) -> Overrides:
        """What stands over every profile: a model is asked for in place of the chosen one's alone."""
        return replace(self, model_id=None, model_path=None)

    @property
    def model(self) -> str | None:
        """The model that is asked for, MODEL_PATH before MODEL_ID."""
        return str(self.model_path) if self.model_path is not None else self.model_id

    @property
    def names_gguf(self) -> bool:
        """Whether that model is a GGUF file."""
        return (self.model or "").endswith(".gguf")


def overridden(profile: Profile, over: Overrides) -> Profile:
    """The profile as it is served. Raises ConfigError for what it can not take.

    A model of the other kind than the profile's makes a profile on the spot: what the chosen one says
    of context and slots was said of another model.
    """
    if over.model is not None and over.names_gguf != (profile.backend == "llamacpp"):
        if over.model_path is None and profile.backend == "llamacpp":
            raise ConfigError(
                f"MODEL_ID={over.model_id}: profile {profile.name} is served by llama-server, which needs "
                "one file; accepted: owner/name:file.gguf (or a path in MODEL_PATH)"
            )
        return overridden(own(over), over)
    return _llamacpp(profile, over) if profile.backend == "llamacpp" else _transformers(profile, over)


def own(over: Overrides) -> Profile:
    """A profile on the spot, for a model that no profile describes."""
    assert over.model is not None
    if over.names_gguf:
        return Profile(
            name=OWN,
            display_name=over.model,
            backend="llamacpp",
            model_id=Path(over.model.rpartition(":")[2]).stem[:200],
            supports_tools=True,  # llama-server is asked whether the chat template shows them
            llamacpp=LlamaCpp(model_path=over.model),
        )
    path = over.model_path
    label = path.name if path else over.model.partition("@")[0]
    return Profile(
        name=OWN,
        display_name=over.model,
        backend="transformers",
        model_id=label[:200] or "model",
        supports_tools=True,  # the worker sees in the chat template whether it has any
        gpu=Gpu(max_model_len=None if path is None else _context_of(path)),
        transformers=Transformers(sources=[over.model]),
    )


def _transformers(profile: Profile, over: Overrides) -> Profile:
    if over.model_path is not None:
        _check_folder(over.model_path)
    block = {"sources": over.model and [over.model], "quantization": over.quantization}
    found = _updated(profile, over, block)
    if over.quantization not in (None, getattr(profile.transformers, "quantization", None)):
        found = found.model_copy(update={"vram_mib": None})
    return found if over.model is None else found.model_copy(update=ANOTHER)


def _llamacpp(profile: Profile, over: Overrides) -> Profile:
    if over.quantization is not None:
        raise ConfigError(
            f"LOAD_IN_{over.quantization.upper()}: a GGUF file is quantised already; choose another "
            "file, or a profile with backend `transformers`"
        )
    block = {
        "ctx_size": over.context,
        "n_gpu_layers": over.n_gpu_layers,
        "threads": over.threads,
        "parallel": over.parallel,
        "batch_size": over.batch_size,
    }
    found = _updated(profile, over, block)
    if _is_less(found, profile):
        found = found.model_copy(update={"vram_mib": None})
    return found if over.model is None else _with_file(found, over)


def asks_for_more(now: Profile, written: Profile) -> bool:
    """Whether it needs more memory than is written: what is written is the least of it then."""
    return now.backend == written.backend and any(
        one > before for one, before in zip(_sizes(now), _sizes(written), strict=True)
    )


def _is_less(now: Profile, written: Profile) -> bool:
    """Whether it needs less of the cards than is written: nobody has said how much that is."""
    return any(one < before for one, before in zip(_sizes(now), _sizes(written), strict=True))


def _sizes(profile: Profile) -> tuple[float, ...]:
    """What its memory grows with."""
    asked = profile.llamacpp.n_gpu_layers if profile.llamacpp else None
    return (profile.context, profile.slots, math.inf if asked in (None, -1) else asked)


def _with_file(profile: Profile, over: Overrides) -> Profile:
    """The profile with the file that is asked for, without what was said of another one."""
    block = profile.llamacpp
    assert block is not None
    named = _named(over)
    update = {"sha256": "", **named}
    others: dict[str, Any] = ANOTHER
    if Path(str(over.model)).name == Path(block.hf_filename).name:  # a copy of the same
        update, others = named, {}
    if named.get("hf_repo_id", block.hf_repo_id) != block.hf_repo_id:
        # Another repository has another image encoder, or none.
        update |= {"mmproj_filename": "", "mmproj_sha256": ""}
        others = {**ANOTHER, "supports_vision": False}
    return profile.model_copy(update={"llamacpp": block.model_copy(update=update), **others})


def _named(over: Overrides) -> dict[str, str]:
    """The keys that name the file."""
    if over.model_path is not None:
        return {"model_path": str(over.model_path)}
    found = GGUF_ID.fullmatch(over.model_id or "")
    assert found is not None
    return {
        "model_path": "",
        "hf_repo_id": found["repository"],
        "hf_revision": found["revision"] or "",
        "hf_filename": found["file"],
    }


def _updated(profile: Profile, over: Overrides, block: dict[str, Any]) -> Profile:
    # For llama-server these only limit keys of its own block, if they are set at all.
    limits = profile.backend == "transformers"
    now = profile.gpu
    gpu = {
        "max_model_len": over.context if limits or now.max_model_len else None,
        "max_concurrent_requests": over.parallel if limits or now.max_concurrent_requests else None,
        "max_batch_tokens": over.batch_size if limits else None,
    }
    mine = getattr(profile, profile.backend)
    return profile.model_copy(
        update={
            profile.backend: mine.model_copy(update=_given(block)),
            "gpu": profile.gpu.model_copy(update=_given(gpu)),
        }
    )


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _check_folder(path: Path) -> None:
    if (path / "config.json").is_file():
        return
    if path.is_dir():
        wrong = "the folder has no config.json"
    else:
        wrong = "the file is no *.gguf" if path.exists() else "there is no such file or folder"
    raise ConfigError(
        f"MODEL_PATH={path}: {wrong}; accepted: a *.gguf file, or a folder with config.json and *.safetensors"
    )


def _context_of(path: Path) -> int:
    """What the model was made for, but no more than a modest default."""
    try:
        config = json.loads((path / "config.json").read_text("utf-8"))
        made_for = config["max_position_embeddings"]
    except (OSError, ValueError, LookupError, TypeError):
        return OWN_CONTEXT
    usable = isinstance(made_for, int) and made_for > 0
    return min(OWN_CONTEXT, made_for) if usable else OWN_CONTEXT
