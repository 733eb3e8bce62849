"""Which cards a child may see. Pure.

CUDA counts cards in an order of its own unless told otherwise; here an index always means the order
of the PCI bus, as nvidia-smi shows it.
"""

from __future__ import annotations

from sidecar.profiles import Profile
from sidecar.settings import Settings


def child_environment(profile: Profile, settings: Settings) -> dict[str, str]:
    """What an engine's child gets on top of our own environment.

    Without a word about cards anywhere, CUDA_VISIBLE_DEVICES stays as we have it ourselves.
    """
    cards = visible_cards(profile, settings)
    pinned = {} if cards is None else {"CUDA_VISIBLE_DEVICES": cards}
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **pinned}


def visible_cards(profile: Profile, settings: Settings) -> str | None:
    """The value of CUDA_VISIBLE_DEVICES: the override, else the profile's cards; None is nothing said.

    `DEVICE=cuda:N` is one of these for llama-server, which has no such setting; the transformers
    worker counts them by itself.
    """
    if settings.device == "cpu" or (profile.gpu.cards == 0 and settings.cuda_visible_devices is None):
        return ""
    ids = ",".join(map(str, profile.gpu.device_ids)) or None
    cards = settings.cuda_visible_devices or ids
    wanted = settings.device.partition(":")[2]
    if profile.backend != "llamacpp" or not wanted:
        return cards
    listed = cards.split(",") if cards else []
    return listed[int(wanted)] if int(wanted) < len(listed) else wanted
