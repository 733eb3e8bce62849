"""Where the GGUF files of a profile are: given, in a folder, in a hub cache, or fetched.

Nothing is asked of the network for what is here. A model of several parts is here when all are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar import checksums, embedded, gguf, hub, hub_cache
from sidecar.errors import WeightsMissing
from sidecar.llama_args import LlamaFiles
from sidecar.profiles import EMBEDDED, LlamaCpp

# Where containers have their models; LLM_CACHE_DIR is the same place outside of one.
MODELS = Path("/models")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One model: its file's name, or the file itself where it is `given`."""

    name: str
    sha256: str
    given: Path | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        return gguf.part_names(self.name)


def llama_files(
    block: LlamaCpp, *, cache_dir: Path | None, on_progress: Callable[[float, str], None]
) -> LlamaFiles:
    """The files of the profile, whole as far as their headers tell; fetched where they are not here.

    Looked for is in this order: `model_path` (MODEL_PATH, where that is set), `model_root`, the folder
    `gguf` of `cache_dir`, the hub's cache, the cache of the image. `cache_dir` is LLM_CACHE_DIR, which
    stands for `/models`. What is
    fetched goes into `model_root` if there is one, else into the hub's cache. `on_progress` gets a
    fraction and a text meanwhile. Raises WeightsMissing, WeightsDamaged and ConfigError.
    """
    wanted = _wanted(block)
    folders = _folders(block, cache_dir, wanted[0].given)
    missing = [one for one in wanted if _here(one, folders) is None]
    if missing:
        folders += _fetch(block, missing, folders, _roots(block, cache_dir), on_progress)
    for one in wanted:
        _check(one, _here(one, folders), on_progress)
    return _files([_here(one, folders) for one in wanted])


def files_here(block: LlamaCpp, cache_dir: Path | None) -> LlamaFiles | None:
    """The same files if all are here and nothing is left to fetch or to count; costs milliseconds.

    Raises what `llama_files` raises for a file that is given and can not be used.
    """
    wanted = _wanted(block)
    folders = _folders(block, cache_dir, wanted[0].given)
    found = [_here(one, folders) for one in wanted]
    for one, path in zip(wanted, found, strict=True):
        if path is None or (one.sha256 and checksums.remembered(path) is None):
            return None
    for one, path in zip(wanted, found, strict=True):
        _check(one, path, lambda *_: None)
    return _files(found)


def whole_files(block: LlamaCpp, cache_dir: Path | None) -> LlamaFiles | None:
    """The same files as far as their headers tell, no sum is counted; None if one is to be fetched.

    Raises what `llama_files` raises for one that is damaged, or that is given or has no repository and
    is not here.
    """
    wanted = _wanted(block)
    folders = _folders(block, cache_dir, wanted[0].given)
    found = [_here(one, folders) for one in wanted]
    for one, path in zip(wanted, found, strict=True):
        if path is not None:
            _check_header(one, path)
    missing = [one for one, path in zip(wanted, found, strict=True) if path is None]
    if missing and not block.hf_repo_id:
        raise _nowhere(missing[0], folders)
    return None if missing else _files(found)


def expected_files(block: LlamaCpp, cache_dir: Path | None) -> LlamaFiles:
    """Where the files are, or will be once they are fetched; nothing is checked."""
    wanted = _wanted(block)
    folders = _folders(block, cache_dir, wanted[0].given)
    root = [*_roots(block, cache_dir), _snapshot_to_be(block)][0]
    return _files([one.given or _here(one, folders) or root / one.name for one in wanted])


def missing_parts(block: LlamaCpp, cache_dir: Path | None) -> tuple[list[str], Path]:
    """The names that a start would fetch, and the folder that they would come into."""
    wanted = _wanted(block)
    folders = _folders(block, cache_dir, wanted[0].given)
    names = [part for one in wanted if _here(one, folders) is None for part in one.parts]
    return names, [*_roots(block, cache_dir), hub_cache.root()][0]


def _wanted(block: LlamaCpp) -> list[_Wanted]:
    """The model first, and the image encoder if there is one."""
    if block.model_path == EMBEDDED:
        model = _Wanted(embedded.GGUF_Q8_0.name, "", embedded.GGUF_Q8_0)
    elif block.model_path:
        path = hub_cache.resolved(Path(block.model_path).expanduser())
        first = path.with_name(gguf.part_names(path.name)[0])
        model = _Wanted(first.name, block.sha256, first)
    else:
        model = _Wanted(gguf.part_names(block.hf_filename)[0], block.sha256)
    if not block.mmproj_filename:
        return [model]
    return [model, _Wanted(block.mmproj_filename, block.mmproj_sha256)]


def _roots(block: LlamaCpp, cache_dir: Path | None) -> list[Path]:
    """`model_root`, as it is written and as LLM_CACHE_DIR has it; the first is where files go."""
    if not block.model_root:
        return []
    root = Path(block.model_root).expanduser()
    if cache_dir is None or not root.is_relative_to(MODELS):
        return [root]
    # LLM_CACHE_DIR may name the host's folder, which a container has at /models.
    bases = sorted((cache_dir, MODELS), key=lambda base: not base.is_dir())
    return [base / root.relative_to(MODELS) for base in bases]


def _folders(block: LlamaCpp, cache_dir: Path | None, given: Path | None) -> list[Path]:
    """Every folder that is looked into, in order; of the caches, those of the repository."""
    folders = [given.parent] if given else []
    folders += _roots(block, cache_dir)
    if cache_dir is not None and cache_dir / "gguf" not in folders:
        folders.append(cache_dir / "gguf")  # where people copy them to, whatever the profile says
    if block.hf_repo_id:
        caches = [hub_cache.root()]
        if carried := os.environ.get("PRELOADED_MODELS"):
            caches.append(Path(carried) / "hub")
        found = (hub_cache.snapshot(cache, block.hf_repo_id, block.hf_revision) for cache in caches)
        folders += [folder for folder in found if folder]
    return folders


def _snapshot_to_be(block: LlamaCpp) -> Path:
    repository = hub_cache.repository_folder(hub_cache.root(), block.hf_repo_id or "unknown/unknown")
    return repository / "snapshots" / (block.hf_revision or hub_cache.MAIN)


def _here(one: _Wanted, folders: Sequence[Path]) -> Path | None:
    """The first part of the model in the first folder that has all of them."""
    if one.given is not None:
        return one.given
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
    return bool(sha256) and path.is_symlink() and len(name) == len(sha256) and name != sha256


def _fetch(
    block: LlamaCpp,
    missing: Sequence[_Wanted],
    folders: Sequence[Path],
    roots: Sequence[Path],
    on_progress: Callable[[float, str], None],
) -> list[Path]:
    """Bring them here; the folders to look into, besides the roots."""
    if not block.hf_repo_id:
        raise _nowhere(missing[0], folders)
    there = hub.listing(block.hf_repo_id, block.hf_revision)
    names = [part for one in missing for part in one.parts]
    sums = {one.parts[0]: one.sha256 for one in missing}
    fetched = hub.fetch(there, names, on_progress, folder=roots[0] if roots else None, sums=sums)
    return [] if roots else [fetched[0].parents[names[0].count("/")]]


def _nowhere(one: _Wanted, folders: Sequence[Path]) -> WeightsMissing:
    return WeightsMissing(
        f"{one.name} is not here; looked in: {', '.join(map(str, folders))}. Copy the file there, "
        "name its repository in `hf_repo_id`, or set MODEL_PATH to a .gguf file."
    )


def _check_header(one: _Wanted, path: Path) -> None:
    if one.given is not None:
        check_given(path)
    gguf.check(path)


def _check(one: _Wanted, path: Path | None, on_progress: Callable[[float, str], None]) -> None:
    assert path is not None, "fetched, or refused before"
    _check_header(one, path)
    if one.sha256:
        if checksums.remembered(path) is None:
            on_progress(1.0, f"checking the sum of {path.name}")
        checksums.require(path, one.sha256, "the profile")


def check_given(path: Path) -> None:
    """Raises WeightsMissing, with what to do, where the file that `model_path` names is not there."""
    if not path.is_file():
        raise WeightsMissing(_not_there(path))


def _not_there(path: Path) -> str:
    if path.is_dir():
        return f"{path} (MODEL_PATH, or the profile's model_path) is a folder; a .gguf file is expected."
    fetch = "Give the path of a .gguf file."
    if (repository := hub_cache.repository_of(path)) is not None:
        fetch = f"`hf download {repository} {path.name}` puts it there, with the HF_HOME of that path."
    return f"{path} (MODEL_PATH, or the profile's model_path) is not there. {fetch}"


def _files(paths: Sequence[Path | None]) -> LlamaFiles:
    model, *others = paths
    assert model is not None, "checked before"
    return LlamaFiles(model, others[0] if others else None)
