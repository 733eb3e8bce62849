"""`llm-sidecar download` and `check`: the files of a profile, fetched, or counted anew."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from sidecar import checksums, gguf, weights
from sidecar.errors import WeightsMissing
from sidecar.model_files import check_given, expected_files, llama_files
from sidecar.profiles import OWN, Profile

Progress = Callable[[float | None, str], None]
MIB = 1024 * 1024
SHA256 = re.compile(r"[0-9a-f]{64}")


def download(profile: Profile, cache_dir: Path | None, on_progress: Progress) -> str:
    """Find or fetch the files, and say where they are. Raises StartError."""
    if profile.backend == "llamacpp":
        assert profile.llamacpp is not None
        files = llama_files(profile.llamacpp, cache_dir=cache_dir, on_progress=on_progress)
        paths = _with_parts(files.model) + ([files.mmproj] if files.mmproj else [])
        said = ", ".join(str(path) for path in paths)
        return f"{profile.name}: {_mib(*paths)} MiB in {said}"
    assert profile.transformers is not None
    folder = weights.find(profile.transformers.sources, on_progress)
    weights.check(folder)
    return f"{profile.name}: {weights.stored_mib(folder):.0f} MiB of weights in {folder}"


def check(profile: Profile, cache_dir: Path | None, on_progress: Progress) -> Iterator[str]:
    """One line for each file that is here and right; no network is asked.

    A sum is counted anew where one is known: the profile's, or that by which a hub cache names the
    file. Raises WeightsMissing and WeightsDamaged for the first file that is not.
    """
    for path, sha256 in _files(profile, cache_dir):
        known = sha256 or _own_sum(path)
        if known:
            on_progress(None, f"counting {path.name}")
            checksums.forget(path)
            checksums.require(path, known, "the profile" if sha256 else "the hub")
        yield f"{path}: {_mib(path)} MiB, whole{', its SHA-256 is right' if known else ''}"


def _files(profile: Profile, cache_dir: Path | None) -> Iterator[tuple[Path, str]]:
    """The files that are loaded, and the profile's sums of them; their headers are right."""
    if profile.backend == "llamacpp":
        block = profile.llamacpp
        assert block is not None
        expected, fetch = expected_files(block, cache_dir), _fetching(profile) if block.hf_repo_id else ""
        if block.model_path:
            check_given(expected.model)
        for model, sha256 in ((expected.model, block.sha256), (expected.mmproj, block.mmproj_sha256)):
            if model is not None:
                gguf.check(model, fetch)
                first, *others = _with_parts(model)
                yield first, sha256
                yield from ((other, "") for other in others)
        return
    assert profile.transformers is not None
    sources = profile.transformers.sources
    folder = weights.find_here(sources)
    if folder is None:
        raise WeightsMissing(
            f"{profile.name}: none of {', '.join(sources)} is here; `{_fetching(profile)}` fetches it."
        )
    weights.check(folder)
    yield from ((path, "") for path in sorted(folder.glob("*.safetensors")))


def _fetching(profile: Profile) -> str:
    """The command that fetches what it lacks, typed where this one was; a model of one's own has no name."""
    return "llm-sidecar download" + ("" if profile.name == OWN else f" {profile.name}")


def _with_parts(model: Path) -> list[Path]:
    return [model.with_name(name) for name in gguf.part_names(model.name)]


def _own_sum(path: Path) -> str:
    """The name of the blob that the path leads to, where that is a sum."""
    name = path.resolve().name
    return name if path.is_symlink() and SHA256.fullmatch(name) else ""


def _mib(*paths: Path) -> str:
    return f"{sum(path.stat().st_size for path in paths) / MIB:.0f}"
