"""`llm-sidecar plan [NAME] [--vram SIZE[,SIZE ...]] [--json]`: what is served, why so, and what it takes."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import partial

from rich.console import Console

from sidecar import gpu, room
from sidecar.errors import ConfigError
from sidecar.estimate import Estimate
from sidecar.explain import explain
from sidecar.explain_text import show_plan
from sidecar.plan_text import as_json, memory, show_matrix
from sidecar.planning import Planned, Target, planned, target_here
from sidecar.profiles import Profile
from sidecar.progress import shown
from sidecar.registry import Registry, load_registry
from sidecar.settings import PROFILE_NAME, Settings, load
from sidecar.settings_parse import size_mib

log = logging.getLogger("sidecar.plan")

PROG = "llm-sidecar plan"


def plan(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """0 where the profile fits, 78 where it does not.

    Of several sizes without a NAME it is a table of all profiles, and 0.
    """
    flags = _flags()
    wanted, _ = flags.parse_known_args(argv)
    settings = load(argv, environ, PROG, name=PROFILE_NAME, beside=(flags,))
    sizes = _sizes(wanted.vram)
    registry = load_registry(settings.profiles_path)
    targets = [Target("cuda", size) for size in sizes]
    if len(sizes) > 1 and "profile" not in settings.origins:
        profiles = list(registry.profiles.values())
        _show(profiles, _rows(profiles, targets, settings, registry), targets, as_data=wanted.json)
        return 0
    chosen = registry.select(settings.profile, settings.overrides())
    seen = gpu.look()
    # First what a start would refuse: nobody is asked for a header before that.
    explained = asyncio.run(explain(settings, seen, room.memory_mib()))
    targets = targets or [target_here(chosen, settings, seen)]
    rows = _rows([chosen], targets, settings, registry)
    if wanted.json or len(targets) > 1:
        _show([chosen], rows, targets, as_data=wanted.json)
    else:
        show_plan(Console(highlight=False), explained, memory(rows[0][0], targets[0]))
    refused = any(isinstance(one, Estimate) and one.plan is None for one in rows[0])
    return ConfigError.exit_code if refused else 0


def show_refused(settings: Settings) -> None:
    """After a start that was refused: the arithmetic, if the model is too large. Otherwise nothing."""
    registry = load_registry(settings.profiles_path)
    profile = registry.select(settings.profile, settings.overrides())
    held_to = target_here(profile, settings, gpu.look())
    ((found,),) = _rows([profile], [held_to], settings, registry)
    if not isinstance(found, Estimate) or found.plan is not None:
        return
    if settings.log_format == "json":  # what reads lines of a log takes no table
        log.error("the plan", extra={"plan": as_json(profile.name, [found], [held_to])})
    else:
        Console(stderr=True, highlight=False, soft_wrap=True).print(memory(found, held_to))


def _flags() -> argparse.ArgumentParser:
    """What this command takes besides the settings."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument(
        "--vram", metavar="SIZE[,SIZE ...]", default="",
        help="Plan for a card of so much VRAM, as 10.5GiB; of several sizes it is a table.",
    )  # fmt: skip
    flags.add_argument("--json", action="store_true", help="The plan as JSON.")
    return flags


def _sizes(text: str) -> list[float]:
    """MiB. Raises ConfigError for what is no size."""
    try:
        return [float(size_mib(part.strip())) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(
            f"--vram {text[:80]!r} can not be used; accepted: sizes with a unit, as 8GiB or 10752MiB, "
            "separated by commas"
        ) from None


def _rows(
    profiles: Sequence[Profile], targets: Sequence[Target], settings: Settings, registry: Registry
) -> list[tuple[Planned, ...]]:
    with shown(partial(print, file=sys.stderr)) as show:
        return planned(
            profiles,
            targets,
            settings.cache_dir,
            lambda text: show("plan", None, text),
            registry.profiles.values(),
        )


def _show(
    profiles: Sequence[Profile],
    rows: Sequence[tuple[Planned, ...]],
    targets: Sequence[Target],
    *,
    as_data: bool,
) -> None:
    names = [profile.name for profile in profiles]
    if as_data:
        found = [as_json(name, row, targets) for name, row in zip(names, rows, strict=True)]
        print(json.dumps(found, indent=2))
    else:
        show_matrix(Console(highlight=False), names, rows, targets)
