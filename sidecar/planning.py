"""What the profiles of a registry would take of a budget: their files' headers, held to a number."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from sidecar.budget import FILL, Demand, Plan
from sidecar.errors import ConfigError, StartError
from sidecar.estimate import Estimate, estimate
from sidecar.fit import Fit, main_memory_mib, sees_cards, whole_limit_mib
from sidecar.gpu import GpuLook
from sidecar.headers import Described, Progress, described, described_here, described_on_hub, of_files
from sidecar.hub_errors import is_unreachable
from sidecar.llama_args import LlamaFiles
from sidecar.llama_demand import llama_demand
from sidecar.profiles import Profile, clamped
from sidecar.settings import Settings
from sidecar.stored import Model
from sidecar.worker import precision
from sidecar.worker.architectures import check_architecture, usable_context
from sidecar.worker.demand import Wanted, worker_demand

log = logging.getLogger("sidecar.planning")

# A card that is only a number of MiB: a common one, on which every kernel runs.
SUPPOSED = precision.Device("cuda", (8, 6), nvcc=True)
NOT_HERE = "Its files are not here, and the hub could not be reached."


@dataclass(frozen=True, slots=True)
class Target:
    """What is planned for: `budget_mib` of `device` (cuda or cpu); None is no limit.

    `is_all` says that there is no more of it, whatever a setting says.
    """

    device: str
    budget_mib: float | None
    is_all: bool = False

    @property
    def larger(self) -> str:
        """What would have to have more MiB."""
        return "a machine with" if self.is_all else "a budget of"


@dataclass(frozen=True, slots=True)
class Unplanned:
    """A profile whose files tell nothing, or that is not served there; `vram_mib` is what is written.

    `refusal` is what a start would end with; None where it would go on, or only the network is missing.
    """

    profile: str
    why: str
    vram_mib: int | None = None
    refusal: StartError | None = None


Planned = Estimate | Unplanned


def target_here(profile: Profile, settings: Settings, seen: GpuLook, memory_mib: int) -> Target:
    """This machine, as far as it can be told from here: what is seen of its cards, all its main memory."""
    on_card = sees_cards(profile, settings, seen)
    return target(profile, settings, seen, memory_mib, on_card=on_card)


def target(profile: Profile, settings: Settings, seen: GpuLook, memory_mib: int, *, on_card: bool) -> Target:
    """What a start holds to. Several cards count together; without one, `memory_mib` is all there is."""
    if on_card:
        return Target("cuda", whole_limit_mib(profile, settings, seen))
    most_mib = main_memory_mib(settings, memory_mib)
    return Target("cpu", most_mib, is_all=most_mib == memory_mib)


def verdict(found: Planned, held_to: Target, written: Fit) -> Fit:
    """Whether it can be served there: what its plan says, and only without one what is written of it."""
    if isinstance(found, Unplanned):
        return written if found.refusal is None else Fit("can not start", found.why)
    figures = f"{ceil(found.demand.least_mib / FILL)} of {held_to.budget_mib or 0:.0f} MiB"
    if held_to.device == "cpu":
        figures += " of main memory"
    if found.plan is None:
        return Fit("does not fit", figures)
    return Fit("fits" if held_to.device == "cuda" else "on the CPU", figures)


def llama_plan(profile: Profile, files: LlamaFiles, held_to: Target) -> Plan | None:
    """Where the memory goes once llama-server serves these files.

    Raises ConfigError where it would be too much. None for a model whose header does not tell what it
    takes: then the profile's own figure must fit.
    """
    try:
        wanted = _llama_demand(profile, of_files(files), held_to.device)
    except ConfigError as error:
        _check_written(profile, held_to)
        log.warning("nothing is planned: %s", error.message)
        return None
    return granted(profile.name, wanted, held_to)


def granted(profile: str, wanted: Demand, held_to: Target) -> Plan:
    """The plan, its limit one that was set. Raises ConfigError: what is too much, and what would fit."""
    found = estimate(profile, wanted, held_to.budget_mib, larger=held_to.larger)
    if found.plan is None:
        raise ConfigError(f"profile {profile} {found.sentence}")
    return replace(found.plan, budget_mib=None) if held_to.is_all else found.plan


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
    *,
    offline: bool = False,
) -> list[tuple[Planned, ...]]:
    """For each profile a plan for each target; where one does not fit, one of `offered` may be named.

    With `offline` the network is not asked for what is not here.
    """
    others = {other.name: float(other.vram_mib) for other in offered if other.vram_mib is not None}
    rows: list[tuple[Planned, ...]] = []
    for profile in profiles:
        found: Described | Unplanned
        try:
            here = described_here(profile, cache_dir)
            if here is None and offline:
                found = Unplanned(profile.name, NOT_HERE, profile.vram_mib)
            else:
                found = here or described_on_hub(profile, on_progress)
        except StartError as error:
            offline = offline or is_unreachable(error)  # who did not answer once is not asked again
            found = _untold(profile, error)
        rows.append(tuple(_planned(profile, found, target, others) for target in targets))
    return rows


def _untold(profile: Profile, error: StartError) -> Unplanned:
    """llama-server is started all the same where the header alone tells too little for a plan."""
    goes_on = is_unreachable(error) or (profile.backend == "llamacpp" and isinstance(error, ConfigError))
    return Unplanned(profile.name, error.message, profile.vram_mib, None if goes_on else error)


def _planned(
    profile: Profile, found: Described | Unplanned, target: Target, others: Mapping[str, float]
) -> Planned:
    if isinstance(found, Unplanned):
        return found
    try:
        wanted = demand(profile, found, target.device)
    except StartError as error:
        return Unplanned(profile.name, error.message, refusal=error)
    return estimate(profile.name, wanted, target.budget_mib, others, larger=target.larger)


def demand(profile: Profile, found: Described, device: str) -> Demand:
    """What the profile takes on such a device. Raises ConfigError where it can not be served there."""
    if profile.backend == "llamacpp":
        return _llama_demand(profile, found.model, device)
    block = profile.transformers
    assert block is not None
    check_architecture(found.where, found.config)
    wanted = block.quantization
    on = SUPPOSED if device == "cuda" else precision.Device("cpu")
    made_for, asked = found.model.shape.trained_context, profile.gpu.max_model_len is not None
    context = usable_context(found.where, profile.context, made_for, asked=asked)
    serving = Wanted(context, profile.slots, profile.batch_tokens, wanted, block.kv_tokens, block.page_tokens)
    return worker_demand(found.model, serving, precision.chosen(on, found.config, wanted), device)


def _llama_demand(profile: Profile, model: Model, device: str) -> Demand:
    served = clamped(profile, model.shape.trained_context)
    return llama_demand(served, model, on_gpu=device == "cuda")
