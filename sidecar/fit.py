"""Whether a profile fits the cards of this machine, or its main memory where it uses none. Pure.

A comparison of the profile's own figure (`vram_mib`) with what there is, and no more: what a model
really takes is planned when its files are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from sidecar.budget import MIB
from sidecar.errors import ConfigError
from sidecar.gpu import GpuLook, GpuReading, GpuUnreadable
from sidecar.pinning import visible_cards
from sidecar.profiles import Profile
from sidecar.settings import Settings

Verdict = Literal["fits", "does not fit", "on the CPU", "not known"]


@dataclass(frozen=True, slots=True)
class Fit:
    """The verdict, and the figures that it stands on. `over_mib` is what one card would lack."""

    verdict: Verdict
    why: str
    over_mib: int = 0


def fit(profile: Profile, settings: Settings, seen: GpuLook, memory_mib: int) -> Fit:
    """Hold the profile to the budget and to each card that it would use; without one, to `memory_mib`."""
    if isinstance(seen, GpuUnreadable) or not seen:
        return _without_card(profile, settings, memory_mib, "no card here")
    chosen = visible_cards(profile, settings)
    if chosen in ("", "-1"):
        return _without_card(profile, settings, memory_mib, "told to use no card")
    if profile.vram_mib is None:
        return Fit("not known", "nobody has said what it needs as it is served (vram_mib)")
    names = _names(profile, chosen)
    cards = [card for name in names for card in seen if name == str(card.index) or card.uuid.startswith(name)]
    if len(cards) < len(names):
        return Fit("does not fit", f"it wants {_counted(len(names))}, {len(cards)} of them here")
    needed = needed_mib(profile, len(cards))
    limits = [limit_mib(profile, settings.vram_budget_mib, card) for card in cards]
    each = "" if len(cards) == 1 else f" on each of {_counted(len(cards))}"
    for need, limit in zip(needed, limits, strict=True):
        if need > limit:
            return Fit("does not fit", f"{need} of {limit} MiB{each}", need - limit)
    return Fit("fits", f"{needed[0]} of {limits[0]} MiB{each}")


def check_fit(profile: Profile, found: Fit) -> None:
    """Raises ConfigError where the profile's own figure is more than a card may give."""
    if found.over_mib:
        raise ConfigError(
            f"profile {profile.name}: vram_mib {profile.vram_mib} does not fit: {found.why}, "
            f"{found.over_mib} MiB too many for VRAM_BUDGET and gpu.gpu_memory_fraction; raise those if the "
            "card has more, take another profile, or ask for less of this one (N_CTX, N_GPU_LAYERS, "
            "LLAMACPP_PARALLEL_OVERRIDE)"
        )


def limit_mib(profile: Profile, budget_mib: int, card: GpuReading) -> int:
    """What may be used of one card: the budget, and the profile's share of what the card has."""
    share = (profile.backend == "llamacpp" and profile.gpu.gpu_memory_fraction) or 1.0
    return min(budget_mib, int(card.memory_total_bytes // MIB * share))


def needed_mib(profile: Profile, cards: int) -> tuple[int, ...]:
    """The profile's figure, divided as the model is."""
    assert profile.vram_mib is not None
    block = profile.llamacpp if profile.backend == "llamacpp" else None
    shares = block.tensor_split if block and len(block.tensor_split) == cards else [1.0] * cards
    whole = sum(shares) or 1.0
    return tuple(ceil(profile.vram_mib * share / whole) for share in shares)


def _names(profile: Profile, chosen: str | None) -> list[str]:
    """The cards that the model lies on, as indices or UUIDs."""
    names = chosen.split(",") if chosen else [str(index) for index in range(profile.gpu.cards)]
    return names[:1] if profile.backend == "transformers" or profile.spread == "none" else names


def _counted(cards: int) -> str:
    return "1 card" if cards == 1 else f"{cards} cards"


def _without_card(profile: Profile, settings: Settings, memory_mib: int, why: str) -> Fit:
    block = profile.transformers
    if profile.backend == "transformers" and block and block.quantization in ("8bit", "4bit"):
        return Fit("does not fit", f"{block.quantization} loading needs a card")
    most_mib = memory_mib
    if profile.backend == "transformers" and settings.memory_budget_mib is not None:
        most_mib = min(memory_mib, settings.memory_budget_mib)
    if profile.vram_mib is not None and profile.vram_mib > most_mib:
        return Fit("does not fit", f"{why}; {profile.vram_mib} of {most_mib} MiB of main memory")
    return Fit("on the CPU", why)
