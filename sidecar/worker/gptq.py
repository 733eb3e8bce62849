"""From the sources of a profile to a GPTQ checkpoint: found, or made once of a 16-bit model and kept.

Imports no torch, so that `llm-sidecar quantize` can use it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from sidecar import hub, hub_cache, weights
from sidecar.budget import MIB
from sidecar.worker import gptq_make, gptq_plan
from sidecar.worker.gptq_make import Report, Wish

# The second is where auto-gptq's older versions said that a checkpoint is one.
SAYING_HOW = ("config.json", "quantize_config.json")


def ready(sources: Sequence[str], wish: Wish, report: Report) -> Path:
    """The folder of the first source that can be had, as a GPTQ checkpoint.

    What was made before is taken without asking any network. Raises StartError.
    """
    if (kept := kept_here(sources, wish)) is not None:
        return kept
    folder = weights.find(
        sources,
        lambda part, text: report("download", part, text),
        before_fetch=lambda there, names: look_before(there, names, wish, _kept_root()),
    )
    config = weights.check(folder)
    if config.get("quantization_config"):
        return folder
    return _made_once(folder, sources, wish, report)


def kept_here(sources: Sequence[str], wish: Wish) -> Path | None:
    """What was made before of the first source that is no folder itself; no network is asked."""
    for source in sources:
        if source == weights.EMBEDDED or Path(source).expanduser().is_dir():
            return None
        if (kept := kept_folder(source, wish)).is_dir():
            return kept.resolve()
    return None


def kept_folder(source: str, wish: Wish) -> Path:
    """Where the result for a hub id, with its `@revision`, is kept: under HF_HOME."""
    model, _, revision = source.partition("@")
    return _kept_root() / gptq_plan.kept_name(model, revision or hub_cache.MAIN, wish.bits, wish.group_size)


def _kept_root() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "llm-sidecar" / "gptq"


def _made_once(folder: Path, sources: Sequence[str], wish: Wish, report: Report) -> Path:
    if not wish.allowed:
        raise gptq_plan.no_leave(weights.title(folder))
    model, commit = _origin(folder)
    target = kept_folder(f"{model}@{commit}", wish)
    if not target.is_dir():
        gptq_make.make(folder, target, wish, report)
    for source in sources:
        asked, _, revision = source.partition("@")
        if asked == model and revision != commit:
            _point(kept_folder(source, wish), target)
    return target


def _origin(folder: Path) -> tuple[str, str]:
    """(owner/name, commit) of a folder of the hub's cache; (name, a digest of the files) of any other."""
    if folder.parent.name == "snapshots" and (model := hub_cache.repository_of(folder)):
        return model, folder.name
    facts = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(folder.glob("*.*"))]
    return folder.name, hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def _point(link: Path, target: Path) -> None:
    """A branch's name leads to the commit that it was; replaced at once, never missing."""
    new = link.with_name(f".{link.name}.{os.getpid()}")
    new.symlink_to(target.name)
    new.replace(link)


def look_before(there: hub.Listing, names: Sequence[str], wish: Wish, folder: Path) -> None:
    """Before a 16-bit model of the hub is fetched: may it be, is it one that can be, is there room?

    The result goes below `folder`. Raises StartError where the answer is no.
    """
    config_file, *more = hub.fetch(there, [n for n in SAYING_HOW if n in there.files], lambda *_: None)
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except ValueError:
        config = None
    # What is no configuration at all is refused by name when it is here.
    if more or not isinstance(config, dict) or config.get("quantization_config"):
        return
    title = f"{there.repository}@{there.commit[:7]}"
    if not wish.allowed:
        raise gptq_plan.no_leave(title)
    shape = gptq_plan.shape(config, title, wish.group_size)
    needs = gptq_plan.needs(shape, wish.bits, wish.group_size, on_cuda=wish.on_cuda)
    cache = hub_cache.repository_folder(hub_cache.root(), there.repository)
    missing = [
        there.files[name].size_bytes
        for name in names
        if not hub_cache.place_in_cache(cache, there.files[name].etag).target.exists()
    ]
    gptq_make.check_room(title, needs, wish, folder, sum(missing) / MIB)
