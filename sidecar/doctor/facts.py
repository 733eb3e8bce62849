"""What the doctor sees, before anything is thought of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `fix` is what to do unless it is ok.

    A failure is what a start would fail of; a warning is what it would do without.
    """

    name: str
    level: Literal["ok", "warning", "failure"]
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """What could not be looked at, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Serving:
    """The profile that would be served. `card`: whether it goes without one, takes one, or must have one."""

    name: str
    backend: Literal["transformers", "llamacpp"]
    context: int
    whereabouts: str
    card: Literal["never", "if there is one", "always"]


@dataclass(frozen=True, slots=True)
class PlanSeen:
    """The plan's sentence; `least_mib` of each card is a start, `total_mib` the whole plan."""

    fits: bool
    sentence: str
    least_mib: float | None = None
    total_mib: float | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """One process on a card; `held_mib` None is one whose figure the driver does not give."""

    pid: int
    name: str
    held_mib: int | None


@dataclass(frozen=True, slots=True)
class Card:
    """A card, its compute capability where the driver says it, and who is on it, the largest first.

    `holders` None: the driver does not list them here, as inside some containers. `used`: the profile
    would lie on it.
    """

    index: int
    name: str
    free_mib: int
    total_mib: int
    capability: tuple[int, int] | None = None
    holders: tuple[Holder, ...] | None = ()
    used: bool = True


@dataclass(frozen=True, slots=True)
class Driver:
    """The driver's version, the newest CUDA that it runs, and its cards."""

    version: str
    cuda: tuple[int, int] | None
    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True)
class Packages:
    """The Python packages of the transformers engine; `cuda` is torch's own, None for a CPU build."""

    torch: str = ""
    cuda: tuple[int, int] | None = None
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Docker:
    """What `docker info` says, as far as cards go. `cdi`: the cards that it knows by name."""

    version: str
    runtimes: tuple[str, ...] = ()
    cdi: tuple[str, ...] = ()
    cgroup_driver: str = ""


@dataclass(frozen=True, slots=True)
class Binary:
    """The llama-server; `devices` are the cards that it sees, `refused` what it can not be told."""

    path: str
    version: str
    devices: tuple[str, ...] = ()
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """The files that a start would fetch."""

    files: int
    size_mib: float
    origin: str


@dataclass(frozen=True, slots=True)
class Disk:
    """The folder that files would come into."""

    folder: str
    free_mib: float
    writable: bool
    missing: Missing | Unknown | None


@dataclass(frozen=True, slots=True)
class Port:
    """`refused` is empty for one that is free; `served` is the model of a sidecar that answers there."""

    host: str
    number: int
    refused: str = ""
    served: str | None = None
    holder: Holder | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it. None is what this profile or this place does not need.

    `unlinked_nodes`: device nodes of the driver that /dev/char does not lead to; None is not known.
    """

    profile: Serving | Unknown
    plan: PlanSeen | Unknown | None
    driver: Driver | Unknown
    cards_on_bus: int
    in_container: bool
    packages: Packages | Unknown | None
    docker: Docker | Unknown | None
    docker_wanted: bool
    unlinked_nodes: tuple[str, ...] | None
    binary: Binary | Unknown | None
    disk: Disk | Unknown
    port: Port | Unknown

    @property
    def card_use(self) -> str:
        """What the profile says of cards; a profile that can not be read says nothing."""
        return self.profile.card if isinstance(self.profile, Serving) else "if there is one"

    @property
    def cards(self) -> tuple[Card, ...]:
        """The cards that answer."""
        return self.driver.cards if isinstance(self.driver, Driver) else ()


def docker_seen(info: Mapping[str, Any]) -> Docker | Unknown:
    """What `docker info --format '{{json .}}'` printed; its errors are in the same object."""
    if errors := info.get("ServerErrors"):
        return Unknown(f"{errors[0]}")
    devices = info.get("DiscoveredDevices") or ()
    return Docker(
        version=str(info.get("ServerVersion") or "unknown"),
        runtimes=tuple(info.get("Runtimes") or ()),
        cdi=tuple(str(device["ID"]) for device in devices if str(device.get("ID")).startswith("nvidia.com/")),
        cgroup_driver=str(info.get("CgroupDriver") or ""),
    )
