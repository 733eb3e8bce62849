"""Where a profile's model files are: in the package, in a folder, in a hub cache, or fetched.

Only safetensors are ever loaded. A folder with pickled weights or with code of its own is refused
by name, before anything reads it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from sidecar import embedded, hub, hub_cache
from sidecar.errors import ConfigError, NotOnHub, WeightsDamaged, WeightsMissing

log = logging.getLogger(__name__)

EMBEDDED = "embedded"
INDEX = "model.safetensors.index.json"
MIB = 1024 * 1024
# The files of a model that are data: weights, configuration, tokenizer, chat template.
WANTED = ("*.safetensors", "*.json", "tokenizer.model", "*.jinja")
BeforeFetch = Callable[[hub.Listing, Sequence[str]], None]
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def find(
    sources: Sequence[str],
    on_progress: Callable[[float, str], None],
    before_fetch: BeforeFetch | None = None,
) -> Path:
    """The folder of the first source that can be had; hub ids may carry `@revision`.

    What a hub cache holds is taken before any network is asked. `on_progress` gets a fraction and a
    text while files are fetched. `before_fetch` hears what the hub has and which files of it are about
    to be fetched; it may raise StartError. Raises WeightsMissing that says why each source failed.
    """
    for source in sources:
        if (cached := _cached(source)) is not None:
            return cached
    failures = []
    for source in sources:
        if (folder := _local(source)) is not None:
            return folder
        if source.startswith(("/", ".", "~")):
            failures.append(f"{source}: no such folder")
            continue
        if failures:
            log.warning("%s; trying %s", failures[-1], source)
        try:
            return _fetch(source, on_progress, before_fetch)
        except NotOnHub as error:
            failures.append(error.message)
        except WeightsMissing as error:
            # Only a model that does not exist sends us on to the next source: a cut line or a full
            # disk must not end in another model than the one that was asked for.
            failures.append(error.message)
            break
    raise WeightsMissing(
        "No model files could be had. "
        + " ".join(failures)
        + " Set MODEL_PATH to a folder, MODEL_ID to a repository, or HF_TOKEN for a gated one."
    )


def find_here(sources: Sequence[str]) -> Path | None:
    """The folder that `find` would take, if it is here already; no network is asked."""
    found = [*map(_cached, sources), *map(_local, sources[:1])]
    return next((folder for folder in found if folder is not None), None)


def first_on_hub(sources: Iterable[str]) -> hub.Listing:
    """What the hub has of the first source that is there. Raises WeightsMissing that says why none is."""
    failures = []
    for source in sources:
        repository, _, revision = source.partition("@")
        try:
            return hub.listing(repository, revision)
        except NotOnHub as error:
            failures.append(error.message)
    raise NotOnHub(" ".join(failures) or "The profile names no source of weights.")


def _local(source: str) -> Path | None:
    """The folder that the source itself is."""
    if source == EMBEDDED:
        return embedded.MODEL_DIR
    folder = Path(source).expanduser()
    return folder if folder.is_dir() else None


def _cached(source: str) -> Path | None:
    """The model in the hub's cache, or in the one that an image may carry (`PRELOADED_MODELS`)."""
    if source.startswith(("/", ".", "~")) or _local(source) is not None:
        return None
    repository, _, revision = source.partition("@")
    caches = [hub_cache.root()]
    if carried := os.environ.get("PRELOADED_MODELS"):
        caches.append(Path(carried) / "hub")
    for cache in caches:
        folder = hub_cache.snapshot(cache, repository, revision)
        if folder is not None and _is_whole(folder):
            return folder
    return None


def _is_whole(folder: Path) -> bool:
    """Whether a download of it came to its end, as far as its own files tell."""
    return (
        (folder / "config.json").is_file()
        and any(folder.glob("*.safetensors"))
        and not _missing_weights(folder)
        and any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))
    )


def _fetch(source: str, on_progress: Callable[[float, str], None], before_fetch: BeforeFetch | None) -> Path:
    repository, _, revision = source.partition("@")
    on_progress(0.0, repository)
    there = hub.listing(repository, revision)
    names = own_files(there.files)
    if "config.json" not in names:
        raise WeightsMissing(
            f"{repository} holds no config.json, so it is no model for transformers; a repository with "
            "config.json and *.safetensors is needed, or a profile with backend `llamacpp` for GGUF files."
        )
    if before_fetch is not None:
        before_fetch(there, names)
    files = hub.fetch(there, names, on_progress)
    return files[0].parent


def own_files(names: Iterable[str]) -> list[str]:
    """The model's files in the repository's own folder: what is below it is the same in another form."""
    own = (name for name in names if "/" not in name and not name.startswith("consolidated"))
    return sorted(name for name in own if any(fnmatch(name, pattern) for pattern in WANTED))


def check(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`, if the folder is one that may be loaded.

    Raises WeightsMissing without weights, ConfigError for pickles and code, WeightsDamaged for
    files that are not what their names say.
    """
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise WeightsMissing(f"{folder} holds no config.json; a transformers model folder is needed.")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsDamaged(f"{config_file} is not JSON ({error}); fetch the model again.") from error
    if not isinstance(config, dict):
        raise WeightsDamaged(f"{config_file} holds no JSON object; fetch the model again.")
    if "auto_map" in config:
        raise ConfigError(
            f"{folder} wants to run code of its own (auto_map in config.json), which is never done."
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = sorted(f.name for f in folder.iterdir() if f.suffix in PICKLED)
        raise ConfigError(
            f"{folder} holds no *.safetensors"
            + (f", only pickled weights ({', '.join(pickled[:3])}), which can run code" if pickled else "")
            + ". Convert it to safetensors."
        )
    if missing := _missing_weights(folder):
        raise WeightsMissing(
            f"{folder} lacks {', '.join(missing[:3])}"
            + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            + f", which {INDEX} names; fetch the model again."
        )
    for file in weights:
        _check_header(file)
    quantize_config = folder / "quantize_config.json"  # where auto-gptq's older versions said it
    if "quantization_config" not in config and quantize_config.is_file():
        config["quantization_config"] = {"quant_method": "gptq", **json.loads(quantize_config.read_text())}
    return dict(config)


def title(folder: Path) -> str:
    """What people call the folder: `owner/name@commit` for one of a hub cache, else its name."""
    if folder == embedded.MODEL_DIR:
        return EMBEDDED
    cached = folder.parent.parent.name
    if folder.parent.name == "snapshots" and cached.startswith("models--"):
        return f"{cached.removeprefix('models--').replace('--', '/', 1)}@{folder.name[:7]}"
    return folder.name


def stored_mib(folder: Path) -> float:
    """The size on disk of the weights that are loaded: those of the index, where there is one."""
    names = indexed(folder) or {file.name for file in folder.glob("*.safetensors")}
    return sum((folder / name).stat().st_size for name in names if (folder / name).is_file()) / MIB


def _missing_weights(folder: Path) -> list[str]:
    """The files that the index names and the folder lacks."""
    return sorted(name for name in indexed(folder) if not (folder / name).is_file())


def indexed(folder: Path) -> set[str]:
    """The files of the model's index; none where there is no index. Raises WeightsDamaged."""
    index = folder / INDEX
    if not index.is_file():
        return set()
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsDamaged(f"{index} is no index of weights; fetch the model again.") from error
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise WeightsDamaged(f"{index} names files outside of its folder; fetch the model again.")
    return names


def _check_header(file: Path) -> None:
    """A safetensors file says in its header how long it must be (huggingface/safetensors, format)."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(size, 100_000_000):
            raise WeightsDamaged(f"{file} is not a safetensors file; fetch it again.")
        try:
            header = json.loads(stream.read(length))
            ends = [t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsDamaged(f"{file} has a broken header; fetch it again.") from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise WeightsDamaged(f"{file} has {size} of {expected} bytes; fetch it again.")
