"""`llm-sidecar plan [NAME] [--vram SIZE[,SIZE ...]] [--json]`: what is served, why so, and what it takes."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from rich.console import Console

from sidecar import gpu, room
from sidecar.errors import ConfigError
from sidecar.estimate import Estimate
from sidecar.explain import Explanation, explain
from sidecar.explain_text import show_plan
from sidecar.gpu import GpuLook
from sidecar.plan_text import as_json, memory, show_matrix
from sidecar.planning import Planned, Target, Unplanned, planned, target, target_here, verdict
from sidecar.profiles import Profile
from sidecar.progress import shown
from sidecar.registry import Registry, load_registry
from sidecar.settings import PROFILE_NAME, Settings, load
from sidecar.settings_parse import size_mib

log = logging.getLogger("sidecar.plan")

PROG = "llm-sidecar plan"


def plan(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """0 where the profile fits, 78 where it does not.

    Without --vram it is about a start here: raises what that would be refused for, when all is shown; a
    hub that can not be reached now is none of that. Of several sizes without a NAME it is a table of all
    profiles, and 0.
    """
    flags = _flags()
    wanted, _ = flags.parse_known_args(argv)
    settings = load(argv, environ, PROG, name=PROFILE_NAME, beside=(flags,))
    targets = [Target("cuda", size) for size in _sizes(wanted.vram)]
    registry = load_registry(settings.profiles_path)
    if len(targets) > 1 and "profile" not in settings.origins:
        profiles = list(registry.profiles.values())
        _show(profiles, _rows(profiles, targets, settings, registry), targets, as_data=wanted.json)
        return 0
    chosen = registry.select(settings.profile, settings.overrides())
    seen, memory_mib = gpu.look(), room.memory_mib()
    # First what a start would refuse: nobody is asked for a header before that.
    explained = asyncio.run(explain(settings, seen, memory_mib))
    here = _here(chosen, explained, settings, seen, memory_mib)
    ((*found, of_here),) = _rows([chosen], [*targets, here], settings, registry)
    found = found or [of_here]
    if isinstance(of_here, Estimate) and of_here.demand.context < chosen.context:
        explained = asyncio.run(explain(settings, seen, memory_mib, of_here.demand.context))
    fits_here = verdict(of_here, here, explained.fit)
    if wanted.json or len(targets) > 1:
        _show([chosen], [tuple(found)], targets or [here], as_data=wanted.json)
    else:
        explained = replace(explained, fit=fits_here)
        show_plan(Console(highlight=False), explained, memory(found[0], (targets or [here])[0]))
    if not targets and explained.command.refusal is not None:
        raise explained.command.refusal
    code = _exit_code(found)
    return ConfigError.exit_code if not targets and fits_here.verdict == "does not fit" else code


def _here(
    profile: Profile, explained: Explanation, settings: Settings, seen: GpuLook, memory_mib: int
) -> Target:
    """What a start holds to; of llama-server it is known which devices it sees."""
    on_card = explained.command.on_gpu
    if on_card is None:
        return target_here(profile, settings, seen, memory_mib)
    return target(profile, settings, seen, memory_mib, on_card=on_card)


def _exit_code(found: Sequence[Planned]) -> int:
    """Raises what a start would raise for its files."""
    for one in found:
        if isinstance(one, Unplanned) and one.refusal is not None:
            raise one.refusal
    refused = any(isinstance(one, Estimate) and one.plan is None for one in found)
    return ConfigError.exit_code if refused else 0


def show_refused(settings: Settings) -> None:
    """After a start that was refused: the arithmetic, if the model is too large. Otherwise nothing."""
    registry = load_registry(settings.profiles_path)
    profile = registry.select(settings.profile, settings.overrides())
    held_to = target_here(profile, settings, gpu.look(), room.memory_mib())
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
