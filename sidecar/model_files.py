"""Where the GGUF files of a profile are: given, in a folder, in a hub cache, or fetched.

Nothing is asked of the network for what is here. A model of several parts is here when all are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sidecar import checksums, embedded, gguf, hub, hub_cache
from sidecar.errors import ConfigError, WeightsMissing

EMBEDDED = "embedded"
# Where containers have their models; LLM_CACHE_DIR is the same place outside of one.
MODELS = Path("/models")


class Source(Protocol):
    """What is read of a profile's `llamacpp:` block; an empty text says nothing."""

    @property
    def model_root(self) -> str:
        """The folder of the files; without one they are in the hub's cache."""

    @property
    def hf_repo_id(self) -> str:
        """The repository to fetch from."""

    @property
    def hf_filename(self) -> str:
        """The model's file, in the folder and in the repository; of a split one, any part."""

    @property
    def hf_revision(self) -> str:
        """The branch, tag or commit to fetch."""

    @property
    def sha256(self) -> str:
        """The sum of the model's file."""

    @property
    def model_path(self) -> str:
        """The file itself, or `embedded`."""

    @property
    def mmproj_filename(self) -> str:
        """The image encoder's file, beside the model's."""

    @property
    def mmproj_sha256(self) -> str:
        """The sum of the image encoder's file."""


@dataclass(frozen=True, slots=True)
class LlamaFiles:
    """What llama-server is given; `mmproj` is the image encoder of a model that sees."""

    model: Path
    mmproj: Path | None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One model by its name, or where it has to be."""

    name: str
    sha256: str
    given: Path | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        return gguf.part_names(self.name)


def llama_files(
    block: Source,
    *,
    cache_dir: Path | None,
    model_path: Path | None,
    on_progress: Callable[[float, str], None],
) -> LlamaFiles:
    """The files of the profile, whole as far as their headers tell; fetched where they are not here.

    `model_path` is MODEL_PATH, which goes before everything; `cache_dir` is LLM_CACHE_DIR, which
    stands for `/models`. Looked for is in this order: the given file, `model_root`, the hub's cache,
    the cache of the image. What is fetched goes into `model_root` if there is one, else into the
    hub's cache. `on_progress` gets a fraction and a text meanwhile. Raises WeightsMissing,
    WeightsDamaged and ConfigError.
    """
    wanted = _wanted(block, model_path)
    folders = _folders(block, cache_dir, wanted[0].given)
    found = [one.given or _here(one, folders) for one in wanted]
    if None in found:
        missing = [one for one, path in zip(wanted, found, strict=True) if path is None]
        _fetch(block, missing, folders, _roots(block, cache_dir), on_progress)
        found = [one.given or _here(one, folders) for one in wanted]
    paths = [_checked(one, path, on_progress) for one, path in zip(wanted, found, strict=True)]
    return LlamaFiles(paths[0], paths[1] if len(paths) > 1 else None)


def _wanted(block: Source, model_path: Path | None) -> list[_Wanted]:
    """The model first, and the image encoder if there is one."""
    if model_path is not None:  # the profile's sum is that of another file
        model = _Wanted(model_path.name, "", _given(model_path, "MODEL_PATH"))
    elif block.model_path == EMBEDDED:
        model = _Wanted(embedded.GGUF_Q8_0.name, "", embedded.GGUF_Q8_0)
    elif block.model_path:
        path = _given(Path(block.model_path).expanduser(), "model_path")
        model = _Wanted(path.name, block.sha256, path)
    elif block.hf_filename:
        model = _Wanted(gguf.part_names(block.hf_filename)[0], block.sha256)
    else:
        raise ConfigError("the profile's `llamacpp:` block names no file: set hf_filename or model_path")
    if not block.mmproj_filename:
        return [model]
    return [model, _Wanted(block.mmproj_filename, block.mmproj_sha256)]


def _given(path: Path, name: str) -> Path:
    found = hub_cache.resolved(path)
    if found.is_file():
        return found.with_name(gguf.part_names(found.name)[0])
    what = "that is a folder, a .gguf file is expected" if found.is_dir() else "there is no such file"
    fetch = ""
    if (repository := hub_cache.repository_of(path)) is not None:
        fetch = f" `hf download {repository} {path.name}` puts it there, for the HF_HOME of that path."
    raise WeightsMissing(f"{name}={path}: {what}.{fetch}")


def _roots(block: Source, cache_dir: Path | None) -> list[Path]:
    """`model_root`, as it is written and as LLM_CACHE_DIR has it; the first is where files go."""
    if not block.model_root:
        return []
    root = Path(block.model_root).expanduser()
    if cache_dir is None or not root.is_relative_to(MODELS):
        return [root]
    # LLM_CACHE_DIR may name the host's folder, which a container has at /models.
    bases = sorted((cache_dir, MODELS), key=lambda base: not base.is_dir())
    return [base / root.relative_to(MODELS) for base in bases]


def _folders(block: Source, cache_dir: Path | None, given: Path | None) -> list[Path]:
    """Every folder that is looked into, in order; the caches only hold a repository's."""
    beside = [given.parent] if given else []
    folders = beside + _roots(block, cache_dir)
    if block.hf_repo_id:
        caches = [hub_cache.root()]
        if carried := os.environ.get("PRELOADED_MODELS"):
            caches.append(Path(carried) / "hub")
        found = (hub_cache.snapshot(cache, block.hf_repo_id, block.hf_revision) for cache in caches)
        folders += [folder for folder in found if folder]
    return folders


def _here(one: _Wanted, folders: list[Path]) -> Path | None:
    """The first part of the model in the first folder that has all of them."""
    for names in _spellings(one):
        for folder in folders:
            paths = [folder / name for name in names]
            if all(path.is_file() for path in paths) and not _is_another(paths[0], one.sha256):
                return paths[0]
    return None


def _spellings(one: _Wanted) -> Iterator[tuple[str, ...]]:
    """Names with the repository's folders, and without, as a person would copy them."""
    yield one.parts
    if "/" in one.name:
        yield tuple(Path(part).name for part in one.parts)


def _is_another(path: Path, sha256: str) -> bool:
    """Whether it is a blob that is known to be of another version; blobs are named by their sums."""
    name = path.resolve().name
    return bool(sha256) and path.is_symlink() and len(name) == len(sha256) and name != sha256.lower()


def _fetch(
    block: Source,
    missing: list[_Wanted],
    folders: list[Path],
    roots: list[Path],
    on_progress: Callable[[float, str], None],
) -> None:
    if not block.hf_repo_id:
        places = ", ".join(str(folder) for folder in folders) or "nowhere"
        raise WeightsMissing(
            f"{missing[0].name} is not here; looked in: {places}. Copy the file there, name its repository "
            "in `hf_repo_id`, or set MODEL_PATH to a .gguf file."
        )
    there = hub.listing(block.hf_repo_id, block.hf_revision)
    names = [part for one in missing for part in one.parts]
    sums = {one.parts[0]: one.sha256 for one in missing}
    fetched = hub.fetch(there, names, on_progress, folder=roots[0] if roots else None, sums=sums)
    if not roots:
        folders.append(_folder_of(fetched[0], names[0]))


def _folder_of(path: Path, name: str) -> Path:
    """The folder below which the path has that name."""
    return path.parents[len(Path(name).parts) - 1]


def _checked(one: _Wanted, path: Path | None, on_progress: Callable[[float, str], None]) -> Path:
    assert path is not None, "fetched, or refused before"
    gguf.check(path)
    if one.sha256:
        if checksums.remembered(path) is None:
            on_progress(1.0, f"checking the sum of {path.name}")
        checksums.require(path, one.sha256, "the profile")
    return path
