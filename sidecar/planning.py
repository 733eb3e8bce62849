"""What the profiles of a registry would take of a budget: their files' headers, held to a number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.budget import Demand
from sidecar.errors import StartError
from sidecar.estimate import Estimate, estimate
from sidecar.fit import limit_mib
from sidecar.gpu import GpuLook
from sidecar.headers import Described, Progress, described
from sidecar.hub_errors import is_unreachable
from sidecar.llama_demand import llama_demand
from sidecar.profiles import Profile
from sidecar.settings import Settings
from sidecar.worker import precision
from sidecar.worker.architectures import check_architecture
from sidecar.worker.demand import Wanted, worker_demand

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
    """This machine, as a start would use it. Several cards count together."""
    if isinstance(seen, tuple) and seen and settings.device != "cpu":
        cards = max(profile.gpu.cards, 1) if profile.backend == "llamacpp" else 1
        each_mib = min(limit_mib(profile, settings.vram_budget_mib, card) for card in seen)
        return Target("cuda", float(each_mib * cards))
    return Target("cpu", settings.memory_budget_mib)


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
    wanted, stored = block.quantization, precision.checkpoint(found.config)
    if wanted == "gptq":  # quantised at the first start, if it is not yet
        stored = precision.Checkpoint(dtype="float16", method="gptq")
    on = SUPPOSED if device == "cuda" else precision.Device("cpu")
    serving = Wanted(
        profile.context, profile.slots, profile.batch_tokens, wanted, block.kv_tokens, block.page_tokens
    )
    return worker_demand(found.model, serving, precision.choose(on, stored, wanted), device)
