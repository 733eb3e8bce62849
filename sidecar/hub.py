"""The Hugging Face hub: one path for everything that is fetched, and its cache on disk.

The hub's client asks, knows tokens, endpoints and proxies, and says what went wrong. Storing is
done here, since the client (2.4) drops what it has when a line is cut for good: files go on where
they ended, and a file gets its name only when its sum is right.
"""

from __future__ import annotations

import difflib
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from sidecar import checksums, hub_cache
from sidecar.errors import NotOnHub, StartError, WeightsDamaged, WeightsMissing
from sidecar.hub_cache import MAIN, Place
from sidecar.hub_errors import explained
from sidecar.transfer import alone, patiently, receive, stored_bytes

Progress = Callable[[float, str], None]
MB = 1_000_000
# Room that stays free on a disk, besides what is fetched.
SPARE_BYTES = 64 * 1024 * 1024
REPORT_EVERY_S = 0.2
LISTING_PAUSES_S = (0.5, 1.0, 2.0)
HASH = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")  # what becomes the name of a blob


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What the hub says of a file. `sha256` is known of large files only; `etag` names the blob."""

    name: str
    size_bytes: int
    etag: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit, and everything that is in it."""

    repository: str
    revision: str
    commit: str
    files: Mapping[str, RemoteFile]

    def file(self, name: str) -> RemoteFile:
        """The file of that name; NotOnHub with the nearest names if there is none."""
        if name in self.files:
            return self.files[name]
        lowered = {known.lower(): known for known in self.files}
        near = [lowered[n] for n in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.4)]
        raise NotOnHub(
            f"{self.repository} has no file {name!r} at {self.revision}; "
            f"{'nearest' if near else 'there are'}: {', '.join(near or sorted(self.files)[:5]) or 'none'}"
        )


def listing(repository: str, revision: str) -> Listing:
    """What the hub has, in one question. Raises NotOnHub, WeightsMissing or ConfigError."""
    from huggingface_hub import constants, model_info

    ask = partial(
        model_info,
        repository,
        revision=revision or None,
        files_metadata=True,
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
    )
    try:
        info = patiently(ask, LISTING_PAUSES_S, lambda: False)
    except Exception as error:  # the hub's client raises errors of many libraries
        raise _explained(error, repository, revision, hub_cache.root()) from error
    files = {}
    for told in info.siblings or []:
        sha256 = told.lfs.sha256 if told.lfs else None
        etag = sha256 or told.blob_id or ""
        if _is_harmless(told.rfilename) and told.size is not None and HASH.fullmatch(etag):
            files[told.rfilename] = RemoteFile(told.rfilename, told.size, etag, sha256)
    return Listing(repository, revision or MAIN, str(info.sha), files)


def fetch(
    there: Listing,
    names: Sequence[str],
    on_progress: Progress,
    *,
    folder: Path | None = None,
    sums: Mapping[str, str] | None = None,
) -> list[Path]:
    """Bring those files here, and say where each is: below `folder`, or in the hub's cache.

    `on_progress` gets the fraction of all bytes, and a text. `sums` are SHA-256 sums that the
    caller wants by name, besides the hub's own. What is cut goes on with the next call. Raises NotOnHub,
    WeightsDamaged for a wrong sum, WeightsMissing for everything else.
    """
    files = [there.file(name) for name in names]
    wanted = {name: sum_.lower() for name, sum_ in (sums or {}).items() if sum_}
    for file in files:
        _check_promise(there, file, wanted.get(file.name))
    into = folder or hub_cache.repository_folder(hub_cache.root(), there.repository)
    if folder is None:
        places = [hub_cache.place_in_cache(into, file.etag) for file in files]
    else:
        places = [hub_cache.place_below(into, file.name, file.etag) for file in files]
    try:
        _check_space(files, places, into)
        tally = _Tally(there.repository, files, on_progress)
        for file, place in zip(files, places, strict=True):
            _bring(there, file, place, tally, wanted.get(file.name))
        if folder is not None:
            return [place.target for place in places]
        blobs = zip(names, (place.target for place in places), strict=True)
        return hub_cache.link(into, there.commit, there.revision, blobs)
    except StartError:
        raise
    except Exception as error:  # the hub's client raises errors of many libraries
        raise _explained(error, there.repository, there.revision, into) from error


class _Tally:
    """All bytes of a fetch, told now and then."""

    def __init__(self, repository: str, files: Sequence[RemoteFile], on_progress: Progress) -> None:
        self._what = repository
        self._on_progress = on_progress
        self._total = sum(file.size_bytes for file in files)
        self._done = 0
        self._told_at = 0.0
        self.add(0)

    def add(self, count: int) -> None:
        """That many bytes more; a negative number when a file is begun anew."""
        self._done += count
        now = time.monotonic()
        if now - self._told_at >= REPORT_EVERY_S or self._done >= self._total:
            self._told_at = now
            self.say(f"{self._what} {self._done // MB} of {self._total // MB} MB")

    def say(self, text: str, more: int = 0) -> None:
        """The text, with `more` bytes that somebody else has."""
        self._on_progress(min((self._done + more) / max(self._total, 1), 1.0), text)


def _bring(there: Listing, file: RemoteFile, place: Place, tally: _Tally, wanted: str | None) -> None:
    from huggingface_hub import hf_hub_url

    place.target.parent.mkdir(parents=True, exist_ok=True)
    url = hf_hub_url(there.repository, file.name, revision=there.commit)

    def waiting() -> None:
        tally.say(f"waiting for another download of {file.name}", stored_bytes(place.part))

    with alone(place.lock, waiting):
        if place.target.exists() and stored_bytes(place.target) == file.size_bytes:
            tally.add(file.size_bytes)
            return
        if (have := stored_bytes(place.part)) > file.size_bytes:
            place.part.unlink()
            have = 0
        tally.add(have)
        receive(url, place.part, file.size_bytes, tally.add)
        found = _check_sum(there, file, place.part, tally, wanted)
        place.part.replace(place.target)
    if found is not None:
        checksums.remember(place.target, found)


def _check_sum(there: Listing, file: RemoteFile, part: Path, tally: _Tally, wanted: str | None) -> str | None:
    """The file's sum, where one is known to hold it to; what is wrong is removed: it never becomes right."""
    promised = file.sha256 or wanted
    found = None
    wrong = ""
    if (size_bytes := stored_bytes(part)) != file.size_bytes:
        wrong = f"{size_bytes} bytes came, {file.size_bytes} were promised"
    elif promised is not None:
        tally.say(f"checking the sum of {file.name}")
        found = checksums.sha256_of(part)
        wrong = "" if found == promised else f"the SHA-256 of what came is {found}, promised was {promised}"
    if wrong:
        part.unlink()
        raise WeightsDamaged(f"{file.name} of {there.repository}: {wrong}. It was removed; try again.")
    return found


def _check_promise(there: Listing, file: RemoteFile, wanted: str | None) -> None:
    """Before anything is fetched: what the caller wants is what the hub has."""
    from huggingface_hub import constants

    if wanted and file.sha256 and wanted != file.sha256:
        raise WeightsDamaged(
            f"{file.name} of {there.repository} has the SHA-256 {file.sha256} at {there.commit[:7]}, but the "
            f"profile says {wanted}. Nothing was fetched: correct the sum, or name the commit in "
            "`hf_revision`."
        )
    if file.size_bytes > constants.MAX_HTTP_DOWNLOAD_SIZE:
        raise WeightsMissing(
            f"{file.name} of {there.repository} is larger than the 50 GB that the hub gives over plain HTTP. "
            f"Run `hf download {there.repository} {file.name}`; it is found in the cache then."
        )


def _check_space(files: Sequence[RemoteFile], places: Sequence[Place], into: Path) -> None:
    missing = 0
    for file, place in zip(files, places, strict=True):
        if not place.target.exists():
            missing += max(file.size_bytes - stored_bytes(place.part), 0)
    standing = next(folder for folder in (into, *into.parents) if folder.exists())
    free = shutil.disk_usage(standing).free
    if missing and missing + SPARE_BYTES > free:
        raise WeightsMissing(
            f"{into} has {free // MB} MB free, {(missing + SPARE_BYTES) // MB} MB are needed. Make room, or "
            "set HF_HOME (LLM_CACHE_DIR for a model_root) to another disk; nothing was fetched."
        )


def _is_harmless(name: str) -> bool:
    """Whether the name stays below the folder that it is stored in."""
    return not name.startswith("/") and ".." not in PurePosixPath(name).parts and "\\" not in name


def _explained(error: Exception, repository: str, revision: str, folder: Path) -> StartError:
    from huggingface_hub import constants

    what = f"{repository}@{revision}" if revision not in ("", MAIN) else repository
    return explained(error, what, f"{constants.ENDPOINT}/{repository}", folder)
