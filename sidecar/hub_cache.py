"""The hub's cache on disk, in the layout of the hub's own client.

    models--owner--name/blobs/<etag>                  the bytes; `.incomplete` while they come
    models--owner--name/snapshots/<commit>/<file>     links to them, under the files' names
    models--owner--name/refs/<revision>               the commit that a branch or tag stood for

Every other program of the hub finds what is put here, and the reverse.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MAIN = "main"
PREFIX = "models--"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file gets its name, where it grows until then, and who may write there."""

    target: Path
    part: Path
    lock: Path


def root() -> Path:
    """The hub's cache, as HF_HUB_CACHE, HF_HOME and XDG_CACHE_HOME say."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def repository_folder(cache: Path, repository: str) -> Path:
    """Where the cache keeps everything of a model's repository."""
    return cache / f"{PREFIX}{repository.replace('/', '--')}"


def snapshot(cache: Path, repository: str, revision: str) -> Path | None:
    """The folder of the files that are in the cache, whole or not; no network is asked."""
    folder = repository_folder(cache, repository)
    commit = _commit(folder, revision or MAIN)
    found = folder / "snapshots" / commit
    return found if commit and found.is_dir() else None


def resolved(path: Path) -> Path:
    """The path with `snapshots/latest` replaced by the commit that the cache holds of `main`."""
    parts = path.parts
    for at in range(len(parts) - 1):
        if parts[at : at + 2] == ("snapshots", "latest") and not Path(*parts[: at + 2]).exists():
            folder = Path(*parts[:at])
            return folder.joinpath("snapshots", _commit(folder, MAIN) or "latest", *parts[at + 2 :])
    return path


def place_in_cache(repository: Path, etag: str) -> Place:
    """Of a blob. The lock is the client's: a program beside us waits, and we for it."""
    blob = repository / "blobs" / etag
    lock = repository.parent / ".locks" / repository.name / f"{etag}.lock"
    return Place(blob, blob.with_name(f"{etag}.incomplete"), lock)


def place_below(folder: Path, name: str, etag: str) -> Place:
    """Of a file in a plain folder. The beginning of another version is never gone on from."""
    target = folder / name
    part = target.with_name(f"{target.name}.{etag[:12]}.incomplete")
    return Place(target, part, target.with_name(f".{target.name}.lock"))


def repository_of(path: Path) -> str | None:
    """The repository whose folder in a cache the path goes through."""
    for part in path.parts:
        if part.startswith(PREFIX):
            return part.removeprefix(PREFIX).replace("--", "/", 1)
    return None


def link(repository: Path, commit: str, revision: str, blobs: Iterable[tuple[str, Path]]) -> list[Path]:
    """Give the blobs their names at that commit, and last the revision its commit: whoever finds
    the revision finds all of them. The names' paths."""
    snapshot = repository / "snapshots" / commit
    pointers = []
    for name, blob in blobs:
        pointer = snapshot / name
        new = _beside(pointer)
        new.symlink_to(os.path.relpath(blob, pointer.parent))
        pointers.append(new.replace(pointer))
    if revision != commit:
        ref = repository / "refs" / revision
        new = _beside(ref)
        new.write_text(commit, encoding="ascii")
        new.replace(ref)
    return pointers


def _beside(path: Path) -> Path:
    """A name in the same folder that nobody has; what is there is put in the path's place at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    return new


def _commit(repository: Path, revision: str) -> str:
    try:
        return (repository / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return revision if (repository / "snapshots" / revision).is_dir() else ""
