"""Looks at everything, changes nothing: each look has a deadline, and one that fails is a fact too."""

from __future__ import annotations

from dataclasses import replace

from sidecar import gpu
from sidecar.doctor import driver as drivers
from sidecar.doctor import engine_room as engines
from sidecar.doctor import files, ports
from sidecar.doctor.containers import ask_docker, docker_is_here, unlinked_nodes
from sidecar.doctor.deadline import Asked
from sidecar.doctor.facts import Disk, Driver, Facts, Missing, Unknown
from sidecar.engines.llama_binary import PROBE_SECONDS
from sidecar.errors import StartError
from sidecar.fit import cards_in_use
from sidecar.gpu import GpuLook, GpuUnreadable
from sidecar.profiles import Profile
from sidecar.registry import load_registry
from sidecar.settings import Settings

# A driver is waited for as everywhere; the hub's own client gives one question up after 10 s.
DRIVER_S, HUB_S, DOCKER_S, LOCAL_S = gpu.LOOK_SECONDS, 20.0, 12.0, 8.0


def facts(settings: Settings, *, in_container: bool) -> Facts:
    """Everything that this profile and this place need; takes as long as the slowest looks."""
    profile = _profile(settings)
    docker = Asked("the docker command", DOCKER_S, ask_docker)
    nodes = Asked("/dev/char", LOCAL_S, unlinked_nodes)
    port = Asked("the port", LOCAL_S, lambda: ports.look(settings.host, settings.port))
    binary = Asked("llama-server", PROBE_SECONDS + 5, lambda: engines.binary(profile, settings))
    packages = Asked("the Python packages", LOCAL_S, lambda: engines.packages(profile))
    serving = Asked("the profile's files", LOCAL_S, lambda: engines.serving(profile, settings))
    disk = Asked("the disk", LOCAL_S, lambda: files.disk(profile, settings))
    missing = Asked("the hub", HUB_S, lambda: files.missing(profile, settings))
    driver = drivers.read(deadline_s=DRIVER_S)
    seen = gpu.look() if isinstance(driver, Driver) else GpuUnreadable(driver.reason)
    plan = Asked("the hub", HUB_S, lambda: engines.plan(profile, settings, seen))
    return Facts(
        profile=serving.answer(),
        plan=plan.answer(),
        driver=_with_use(driver, profile, settings, seen),
        cards_on_bus=drivers.cards_on_bus(),
        in_container=in_container,
        packages=packages.answer(),
        docker=docker.answer(),
        docker_wanted=docker_is_here() or not in_container,
        unlinked_nodes=_known(nodes.answer()),
        binary=binary.answer(),
        disk=_with_missing(disk.answer(), missing.answer()),
        port=port.answer(),
    )


def _profile(settings: Settings) -> Profile | Unknown:
    try:
        return load_registry(settings.profiles_path).select(settings.profile, settings.overrides())
    except StartError as error:
        return Unknown(error.message)


def _with_use(
    driver: Driver | Unknown, profile: Profile | Unknown, settings: Settings, seen: GpuLook
) -> Driver | Unknown:
    if isinstance(driver, Unknown) or isinstance(profile, Unknown):
        return driver
    used = {card.index for card in cards_in_use(profile, settings, seen)}
    return replace(driver, cards=tuple(replace(card, used=card.index in used) for card in driver.cards))


def _with_missing(disk: Disk | Unknown, missing: Missing | Unknown | None) -> Disk | Unknown:
    return disk if isinstance(disk, Unknown) else replace(disk, missing=missing)


def _known(nodes: tuple[str, ...] | Unknown | None) -> tuple[str, ...] | None:
    return None if isinstance(nodes, Unknown) else nodes
