"""SHA-256 of large files, counted once: what was seen is remembered beside the file."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from sidecar.errors import WeightsDamaged

CHUNK_BYTES = 4 * 1024 * 1024
RECORDS = ".verified"


def require(path: Path, expected: str, where: str) -> None:
    """Hold the file to the sum that `where` gives for it.

    Raises WeightsDamaged with both sums. The file stays: it may be somebody's own copy.
    """
    found = remembered(path) or sha256_of(path)
    if found != expected.lower():
        raise WeightsDamaged(
            f"{path} has the SHA-256 {found}, but {where} says {expected}. Delete the file and fetch "
            "it again, or correct the sum."
        )
    remember(path, found)


def sha256_of(path: Path) -> str:
    """The sum of the whole file, in lower-case hexadecimal digits."""
    seen = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            seen.update(chunk)
    return seen.hexdigest()


def remember(path: Path, sha256: str) -> None:
    """Note the sum of the file as it is now; where nothing can be written it is counted again."""
    record = _record(path)
    with contextlib.suppress(OSError):
        record.parent.mkdir(exist_ok=True)
        record.write_text(f"{sha256} {_state(path)}\n", encoding="ascii")


def forget(path: Path) -> None:
    """Have the sum counted anew."""
    with contextlib.suppress(OSError):
        _record(path).unlink()


def remembered(path: Path) -> str | None:
    """The sum that was noted, if the file has not been touched since."""
    try:
        sha256, _, state = _record(path).read_text(encoding="ascii").strip().partition(" ")
    except (OSError, ValueError):
        return None
    return sha256 if state == _state(path) else None


def _state(path: Path) -> str:
    seen = path.stat()
    return f"{seen.st_size} {seen.st_mtime_ns}"


def _record(path: Path) -> Path:
    """Beside the file; in a hub cache beside the folder of blobs, where the hub's client looks for
    nothing else."""
    real = path.resolve()
    folder = real.parent.parent if real.parent.name == "blobs" else real.parent
    return folder / RECORDS / real.name
