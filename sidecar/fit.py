"""Whether a profile fits the cards of this machine, or its main memory where it uses none. Pure.

A comparison of the profile's own figure (`vram_mib`) with what there is, and no more: what a model
really takes is planned from its files (`sidecar.planning`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from sidecar.budget import MIB
from sidecar.gpu import GpuLook, GpuReading, GpuUnreadable
from sidecar.pinning import visible_cards
from sidecar.profiles import Profile
from sidecar.settings import Settings

Verdict = Literal["fits", "does not fit", "on the CPU", "not known"]


@dataclass(frozen=True, slots=True)
class Fit:
    """The verdict, and the figures that it stands on."""

    verdict: Verdict
    why: str


def fit(profile: Profile, settings: Settings, seen: GpuLook, memory_mib: int) -> Fit:
    """Hold the profile to the budget and to each card that it would use; without one, to `memory_mib`."""
    if isinstance(seen, GpuUnreadable) or not seen:
        return _without_card(profile, settings, memory_mib, "no card here")
    chosen = visible_cards(profile, settings)
    if chosen in ("", "-1"):
        return _without_card(profile, settings, memory_mib, "told to use no card")
    if profile.vram_mib is None:
        return Fit("not known", "nobody has said what it needs as it is served (vram_mib)")
    names, cards = _names(profile, chosen), _cards(profile, chosen, seen)
    if len(cards) < len(names):
        return Fit("does not fit", f"it wants {_counted(len(names))}, {len(cards)} of them here")
    needed = needed_mib(profile, len(cards))
    limits = [limit_mib(profile, settings.vram_budget_mib, card) for card in cards]
    each = "" if len(cards) == 1 else f" on each of {_counted(len(cards))}"
    for need, limit in zip(needed, limits, strict=True):
        if need > limit:
            return Fit("does not fit", f"{need} of {limit} MiB{each}")
    return Fit("fits", f"{needed[0]} of {limits[0]} MiB{each}")


def cards_in_use(profile: Profile, settings: Settings, seen: GpuLook) -> list[GpuReading]:
    """The cards that the model would lie on, of those that are here."""
    chosen = visible_cards(profile, settings)
    return [] if isinstance(seen, GpuUnreadable) or chosen in ("", "-1") else _cards(profile, chosen, seen)


def whole_limit_mib(profile: Profile, settings: Settings, seen: GpuLook) -> float:
    """What may be used of all its cards together, so that none gives more than it may.

    Where the cards can not be read, the budget of each is what counts.
    """
    chosen = visible_cards(profile, settings)
    cards = cards_in_use(profile, settings, seen)
    limits = [limit_mib(profile, settings.vram_budget_mib, card) for card in cards]
    limits = limits or [settings.vram_budget_mib] * len(_names(profile, chosen))
    shares = _shares(profile, len(limits))
    return min(limit / share for limit, share in zip(limits, shares, strict=True) if share)


def limit_mib(profile: Profile, budget_mib: int, card: GpuReading) -> int:
    """What may be used of one card: the budget, and the profile's share of what the card has."""
    share = (profile.backend == "llamacpp" and profile.gpu.gpu_memory_fraction) or 1.0
    return min(budget_mib, int(card.memory_total_bytes // MIB * share))


def needed_mib(profile: Profile, cards: int) -> tuple[int, ...]:
    """The profile's figure, divided as the model is."""
    assert profile.vram_mib is not None
    return tuple(ceil(profile.vram_mib * share) for share in _shares(profile, cards))


def _shares(profile: Profile, cards: int) -> list[float]:
    """Each card's part of the model; 1 in all."""
    block = profile.llamacpp if profile.backend == "llamacpp" else None
    shares = list(block.tensor_split) if block and len(block.tensor_split) == cards else []
    whole = sum(shares)
    return [share / whole for share in shares] if whole else [1 / cards] * cards


def _cards(profile: Profile, chosen: str | None, seen: tuple[GpuReading, ...]) -> list[GpuReading]:
    names = _names(profile, chosen)
    return [card for name in names for card in seen if name == str(card.index) or card.uuid.startswith(name)]


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
    most_mib = min(memory_mib, settings.memory_budget_mib or memory_mib)
    if profile.vram_mib is not None and profile.vram_mib > most_mib:
        return Fit("does not fit", f"{why}; {profile.vram_mib} of {most_mib} MiB of main memory")
    return Fit("on the CPU", why)
