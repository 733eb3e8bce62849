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

Verdict = Literal["fits", "does not fit", "on the CPU", "not known", "can not start"]

UNSAID = "nobody has said what it needs as it is served (vram_mib)"
MORE = "at least: more is asked for than that figure is for"


@dataclass(frozen=True, slots=True)
class Fit:
    """The verdict, and the figures that it stands on."""

    verdict: Verdict
    why: str


def fit(
    profile: Profile, settings: Settings, seen: GpuLook, memory_mib: int, *, at_least: bool = False
) -> Fit:
    """Hold the profile to the budget and to each card that it would use; without one, to `memory_mib`.

    `at_least` says that more is asked for than its figure stands for: too large for that is too large,
    and whether the rest fits is not known.
    """
    if not sees_cards(profile, settings, seen):
        told = isinstance(seen, tuple) and seen
        why = "told to use no card" if told else "no card here"
        return _without_card(profile, settings, memory_mib, why, at_least)
    if profile.vram_mib is None:
        return Fit("not known", UNSAID)
    assert isinstance(seen, tuple)
    chosen = visible_cards(profile, settings)
    names, cards = _names(profile, chosen), _cards(profile, chosen, seen)
    if len(cards) < len(names):
        return Fit("does not fit", f"it wants {_counted(len(names))}, {len(cards)} of them here")
    needed = needed_mib(profile, len(cards))
    limits = [limit_mib(profile, settings.vram_budget_mib, card) for card in cards]
    each = "" if len(cards) == 1 else f" on each of {_counted(len(cards))}"
    for need, limit in zip(needed, limits, strict=True):
        if need > limit:
            return Fit("does not fit", f"{need} of {limit} MiB{each}")
    figures = f"{needed[0]} of {limits[0]} MiB{each}"
    return Fit("not known", f"{figures} {MORE}") if at_least else Fit("fits", figures)


def sees_cards(profile: Profile, settings: Settings, seen: GpuLook) -> bool:
    """Whether the model may use a card of this machine."""
    return isinstance(seen, tuple) and bool(seen) and visible_cards(profile, settings) not in ("", "-1")


def main_memory_mib(settings: Settings, memory_mib: int) -> int:
    """What an engine without a card may take: MEMORY_BUDGET, and never more than there is."""
    return min(memory_mib, settings.memory_budget_mib or memory_mib)


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


def _without_card(profile: Profile, settings: Settings, memory_mib: int, why: str, at_least: bool) -> Fit:
    block = profile.transformers
    if profile.backend == "transformers" and block and block.quantization in ("8bit", "4bit"):
        return Fit("does not fit", f"{block.quantization} loading needs a card")
    if profile.vram_mib is None:
        return Fit("not known", f"{why}; {UNSAID}")
    most_mib = main_memory_mib(settings, memory_mib)
    figures = f"{why}; {profile.vram_mib} of {most_mib} MiB of main memory"
    if profile.vram_mib > most_mib:
        return Fit("does not fit", figures)
    return Fit("not known", f"{figures} {MORE}") if at_least else Fit("on the CPU", why)
