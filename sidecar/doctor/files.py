"""What a start would fetch, and whether there is room for it."""

from __future__ import annotations

import os
from pathlib import Path

from sidecar import hub, hub_cache, room, weights
from sidecar.budget import MIB
from sidecar.doctor.facts import Disk, Missing, Unknown
from sidecar.errors import WeightsMissing
from sidecar.model_files import missing_parts
from sidecar.profiles import Profile
from sidecar.settings import Settings


def disk(profile: Profile | Unknown, settings: Settings) -> Disk:
    """The folder that files come into; what of them is missing is the hub's to say."""
    folder = _folder(profile, settings)
    standing = next(above for above in (folder, *folder.parents) if above.exists())
    return Disk(str(folder), room.free_disk_mib(folder), os.access(standing, os.W_OK), None)


def _folder(profile: Profile | Unknown, settings: Settings) -> Path:
    if isinstance(profile, Profile) and profile.backend == "llamacpp":
        assert profile.llamacpp is not None
        return missing_parts(profile.llamacpp, settings.cache_dir)[1]
    return hub_cache.root()


def missing(profile: Profile | Unknown, settings: Settings) -> Missing | None:
    """What is not here, with the hub's sizes; nobody is asked where all is here. Raises StartError."""
    if isinstance(profile, Unknown):
        return None
    if profile.backend == "llamacpp":
        return _missing_gguf(profile, settings)
    assert profile.transformers is not None
    sources = profile.transformers.sources
    if weights.find_here(sources) is not None:
        return None
    there = weights.first_on_hub(sources)
    return _sized(there, weights.own_files(there.files))


def _missing_gguf(profile: Profile, settings: Settings) -> Missing | None:
    block = profile.llamacpp
    assert block is not None
    names, _ = missing_parts(block, settings.cache_dir)
    if not names:
        return None
    if not block.hf_repo_id:
        raise WeightsMissing(f"{names[0]} is not here, and the profile names no repository (hf_repo_id)")
    return _sized(hub.listing(block.hf_repo_id, block.hf_revision), names)


def _sized(there: hub.Listing, names: list[str]) -> Missing:
    size_bytes = sum(there.file(name).size_bytes for name in names)
    return Missing(len(names), size_bytes / MIB, there.repository)
