"""`llm-sidecar profiles`: every model of the registry, and whether it fits this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from rich.console import Console

from sidecar import gpu, room
from sidecar.engines import check_torch, llama_binary
from sidecar.engines.inherited import inherited
from sidecar.errors import ConfigError
from sidecar.explain import machine
from sidecar.explain_text import LACKS, show_profiles
from sidecar.fit import Fit, fit
from sidecar.gpu import GpuLook
from sidecar.overrides import asks_for_more
from sidecar.planning import planned, target_here, verdict
from sidecar.profiles import OWN, Profile
from sidecar.registry import Registry, load_registry
from sidecar.settings import Settings, load


def profiles(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """0: they are listed whatever is chosen, and the chosen one is marked if it can be had."""
    settings = load(argv, environ, "llm-sidecar profiles")
    registry, seen, memory_mib = load_registry(settings.profiles_path), gpu.look(), room.memory_mib()
    about = [machine(settings, seen, memory_mib)]
    chosen = None
    try:
        chosen = registry.select(settings.profile, settings.overrides())
    except ConfigError as error:
        about.append(f"None is marked: {error.message}")
    by_engine = {"transformers": seen, "llamacpp": _seen_by_llama(settings, environ, seen)}
    listed = list(_listed(registry, chosen, settings, by_engine, memory_mib))
    lacks = _lacking(settings, environ, {profile.backend for profile, _ in listed})
    about += [f"{LACKS} {backend}: {why}" for backend, why in lacks.items()]
    marked = chosen.name if chosen else ""
    show_profiles(Console(highlight=False), listed, marked, "\n".join(about), lacks)
    return 0


def _listed(
    registry: Registry,
    chosen: Profile | None,
    settings: Settings,
    seen: Mapping[str, GpuLook],
    memory_mib: int,
) -> Iterator[tuple[Profile, Fit]]:
    """Each as it would be served, were it chosen. Another model is asked for the chosen one alone."""
    if chosen is not None and chosen.name == OWN:
        yield chosen, _fit(chosen, chosen, settings, seen[chosen.backend], memory_mib)
    for name, written in registry.profiles.items():
        is_chosen = chosen is not None and chosen.name == name
        try:
            served = chosen if is_chosen else registry.select(name, settings.overrides().without_model)
            assert served is not None
        except ConfigError as error:
            yield written, Fit("can not start", error.message)
        else:
            yield served, _fit(served, written, settings, seen[served.backend], memory_mib)


def _fit(profile: Profile, written: Profile, settings: Settings, seen: GpuLook, memory_mib: int) -> Fit:
    """By the files that are here; by the written figure where they are not."""
    more = asks_for_more(profile, written)
    rough = fit(profile, settings, seen, memory_mib, at_least=more)
    held_to = target_here(profile, settings, seen, memory_mib)
    ((found,),) = planned([profile], [held_to], settings.cache_dir, lambda _: None, offline=True)
    return verdict(found, held_to, rough)


def _lacking(settings: Settings, environ: Mapping[str, str], backends: Collection[str]) -> dict[str, str]:
    """The backends of which nothing can be started here, and why."""
    checks: dict[str, Callable[[], object]] = {
        "transformers": check_torch,
        "llamacpp": lambda: llama_binary.find(settings.llama_server, environ),
    }
    found = {}
    for backend in sorted(backends):
        try:
            checks[backend]()
        except ConfigError as error:
            found[backend] = error.message
    return found


def _seen_by_llama(settings: Settings, environ: Mapping[str, str], seen: GpuLook) -> GpuLook:
    """The cards; none for a build that uses none of them."""
    if not isinstance(seen, tuple) or not seen:
        return seen
    try:
        path = llama_binary.find(settings.llama_server, environ)
        asked = asyncio.run(llama_binary.ask(path, inherited(environ)))
    except ConfigError:  # none that runs, which a start will say
        return seen
    return seen if asked.devices else ()
