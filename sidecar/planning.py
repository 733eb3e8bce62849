"""What the profiles of a registry would take of a budget: their files' headers, held to a number."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.budget import Demand, Plan
from sidecar.errors import ConfigError, StartError
from sidecar.estimate import Estimate, estimate
from sidecar.fit import whole_limit_mib
from sidecar.gpu import GpuLook
from sidecar.headers import Described, Progress, described, of_files
from sidecar.hub_errors import is_unreachable
from sidecar.llama_args import LlamaFiles
from sidecar.llama_demand import llama_demand
from sidecar.profiles import Profile
from sidecar.settings import Settings
from sidecar.worker import precision
from sidecar.worker.architectures import check_architecture
from sidecar.worker.demand import Wanted, worker_demand

log = logging.getLogger("sidecar.planning")

# A card that is only a number of MiB: a common one, on which every kernel runs.
SUPPOSED = precision.Device("cuda", (8, 6), nvcc=True)


@dataclass(frozen=True, slots=True)
class Target:
    """What is planned for: `budget_mib` of `device` (cuda or cpu); None is no limit."""

    device: str
    budget_mib: float | None


@dataclass(frozen=True, slots=True)
class Unplanned:
    """A profile whose files tell nothing, or that is not served there; `vram_mib` is what is written."""

    profile: str
    why: str
    vram_mib: int | None = None


Planned = Estimate | Unplanned


def target_here(profile: Profile, settings: Settings, seen: GpuLook) -> Target:
    """This machine, as far as it can be told from here: what is seen of its cards."""
    on_card = isinstance(seen, tuple) and bool(seen) and settings.device != "cpu"
    return target(profile, settings, seen, on_card=on_card)


def target(profile: Profile, settings: Settings, seen: GpuLook, *, on_card: bool) -> Target:
    """What a start holds to. Several cards count together."""
    if on_card:
        return Target("cuda", whole_limit_mib(profile, settings, seen))
    return Target("cpu", settings.memory_budget_mib)


def llama_plan(profile: Profile, files: LlamaFiles, held_to: Target) -> Plan | None:
    """Where the memory goes once llama-server serves these files.

    Raises ConfigError where it would be too much. None for a model whose header does not tell what it
    takes: then the profile's own figure must fit.
    """
    try:
        wanted = llama_demand(profile, of_files(files), on_gpu=held_to.device == "cuda")
    except ConfigError as error:
        _check_written(profile, held_to)
        log.warning("nothing is planned: %s", error.message)
        return None
    return granted(profile.name, wanted, held_to)


def granted(profile: str, wanted: Demand, held_to: Target) -> Plan:
    """The plan. Raises ConfigError that says what is too much and what would fit."""
    found = estimate(profile, wanted, held_to.budget_mib)
    if found.plan is None:
        raise ConfigError(f"profile {profile} {found.sentence}")
    return found.plan


def check_before_fetch(
    profile: Profile, cache_dir: Path | None, held_to: Target, on_progress: Progress
) -> None:
    """Hold the headers on the hub to the budget, before all the rest is fetched.

    Raises ConfigError where it does not fit. Where nothing can be read, the fetch says why not.
    """
    try:
        wanted = demand(profile, described(profile, cache_dir, on_progress), held_to.device)
    except StartError:
        return
    granted(profile.name, wanted, held_to)


def _check_written(profile: Profile, held_to: Target) -> None:
    if profile.vram_mib and held_to.budget_mib is not None and profile.vram_mib > held_to.budget_mib:
        raise ConfigError(
            f"profile {profile.name} does not fit: vram_mib {profile.vram_mib} is more than "
            f"{held_to.budget_mib:.0f} MiB; raise the budget if there is more, take another profile, or ask "
            "for less of this one (N_CTX, N_GPU_LAYERS, LLAMACPP_PARALLEL_OVERRIDE)"
        )


def planned(
    profiles: Sequence[Profile],
    targets: Sequence[Target],
    cache_dir: Path | None,
    on_progress: Progress,
    offered: Iterable[Profile] = (),
) -> list[tuple[Planned, ...]]:
    """For each profile a plan for each target; where one does not fit, one of `offered` may be named."""
    others = {other.name: float(other.vram_mib) for other in offered if other.vram_mib is not None}
    rows: list[tuple[Planned, ...]] = []
    offline = False
    for profile in profiles:
        try:
            found = described(profile, cache_dir, on_progress, offline=offline)
        except StartError as error:
            offline = offline or is_unreachable(error)  # who did not answer once is not asked again
            rows.append((Unplanned(profile.name, error.message, profile.vram_mib),) * len(targets))
            continue
        rows.append(tuple(_planned(profile, found, target, others) for target in targets))
    return rows


def _planned(profile: Profile, found: Described, target: Target, others: Mapping[str, float]) -> Planned:
    try:
        wanted = demand(profile, found, target.device)
    except StartError as error:
        return Unplanned(profile.name, error.message)
    return estimate(profile.name, wanted, target.budget_mib, others)


def demand(profile: Profile, found: Described, device: str) -> Demand:
    """What the profile takes on such a device. Raises ConfigError where it can not be served there."""
    if profile.backend == "llamacpp":
        return llama_demand(profile, found.model, on_gpu=device == "cuda")
    block = profile.transformers
    assert block is not None
    check_architecture(found.where, found.config)
    wanted = block.quantization
    on = SUPPOSED if device == "cuda" else precision.Device("cpu")
    serving = Wanted(
        profile.context, profile.slots, profile.batch_tokens, wanted, block.kv_tokens, block.page_tokens
    )
    return worker_demand(found.model, serving, precision.chosen(on, found.config, wanted), device)
