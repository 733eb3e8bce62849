"""What is to be said of the card and of all that stands between it and the model. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from sidecar.doctor.facts import (
    Card,
    Docker,
    Driver,
    Facts,
    Finding,
    Holder,
    Packages,
    PlanSeen,
    Port,
    Unknown,
)
from sidecar.worker.precision import OLDEST

CPU_OVERLAY = "docker compose -f compose.yaml -f docker/compose.cpu.yaml up llm-sidecar"
TOOLKIT = "install the NVIDIA container toolkit and run `nvidia-ctk runtime configure --runtime=docker`"
# NVIDIA's order (NVIDIA/nvidia-container-toolkit issue 48): the links first, the other cgroup driver last.
RELOAD_FIX = (
    "run `nvidia-ctk system create-dev-char-symlinks --create-all` as root now and at each boot; or give "
    'containers the cards by CDI; or put {"exec-opts": ["native.cgroupdriver=cgroupfs"]} into '
    "/etc/docker/daemon.json and restart Docker"
)
# The first driver of each major CUDA (CUDA's release notes, minor version compatibility).
LEAST_DRIVER = {12: "525", 13: "580"}
# What NVML calls it, what it means, and what helps.
TROUBLES = {
    "LibRmVersionMismatch": (
        "the driver was updated while it runs",
        "restart the machine, or unload and load its kernel modules",
    ),
    "GpuIsLost": ("a card fell off the bus", "look for `Xid` in dmesg, check its power, restart the machine"),
    "NoPermission": (
        "this user may not open the card",
        "give it the right to /dev/nvidia* (often the group `video` or `render`)",
    ),
    "DriverNotLoaded": (
        "the driver is installed and not loaded",
        "run `modprobe nvidia` as root; with Secure Boot its modules must be signed",
    ),
    "has not answered": (
        "the driver hangs",
        "nvidia-smi will hang too; end what uses the card, or restart the machine",
    ),
}
LOST = (
    "this container has lost its card, as `systemctl daemon-reload` on the host makes it",
    "restart the container; then on the host: " + RELOAD_FIX,
)
SHOWN_HOLDERS = 4
Level = Literal["ok", "warning", "failure"]


def findings(facts: Facts) -> Iterator[Finding]:
    """The driver, what is free and who holds the rest, torch, and the way into a container."""
    yield _driver(facts)
    yield from (_vram(card, facts) for card in facts.cards)
    if facts.packages is not None:
        yield _packages(facts.packages, facts)
    if facts.docker_wanted:
        yield from _docker(facts)


def _driver(facts: Facts) -> Finding:
    driver = facts.driver
    if isinstance(driver, Driver) and driver.cards:
        cuda = f", runs CUDA up to {_dotted(driver.cuda)}" if driver.cuda else ""
        names = ", ".join(card.name for card in driver.cards)
        return Finding("driver", "ok", f"NVIDIA driver {driver.version} answers{cuda}: {names}")
    why = "the driver lists no card" if isinstance(driver, Driver) else driver.reason
    if facts.card_use == "never":
        return Finding("driver", "ok", f"no NVIDIA card is used ({why})")
    what, fix = _trouble(why, facts)
    return Finding("driver", _without_card(facts), f"no NVIDIA card can be used here: {what} ({why})", fix)


def _trouble(why: str, facts: Facts) -> tuple[str, str]:
    for name, said in TROUBLES.items():
        if name in why:
            return said
    if facts.in_container:
        given = (
            "start it with compose.yaml, which asks for the card, and look at `llm-sidecar doctor` outside"
        )
        return LOST if "NVMLError_Unknown" in why else ("this container was given none", given)
    if facts.cards_on_bus:
        there = f"{facts.cards_on_bus} on the bus, and no driver that answers"
        return there, "install NVIDIA's driver for it, restart, and run nvidia-smi"
    return "none in this machine", "the CPU is used; for a card, install its driver and run nvidia-smi"


def _without_card(facts: Facts) -> Level:
    return "failure" if facts.card_use == "always" else "warning"


def _vram(card: Card, facts: Facts) -> Finding:
    text = f"card {card.index}, {card.name}: {card.free_mib} of {card.total_mib} MiB free{_held(card)}"
    plan = facts.plan if isinstance(facts.plan, PlanSeen) else PlanSeen(True, "")
    if facts.card_use == "never" or not card.used:
        return Finding("vram", "ok", f"{text}; not used by this profile")
    if isinstance(facts.port, Port) and facts.port.served is not None:
        return Finding("vram", "ok", f"{text}; the LLM Sidecar that runs here has its part of that")
    fix = "end what else holds memory, or take a smaller profile"
    if plan.least_mib is not None and card.free_mib < plan.least_mib:
        return Finding("vram", "failure", f"{text}; a start takes {plan.least_mib:.0f} MiB", fix)
    if plan.total_mib is not None and card.free_mib < plan.total_mib:
        return Finding("vram", "warning", f"{text}; the plan takes {plan.total_mib:.0f} MiB", fix)
    return Finding("vram", "ok", text)


def _held(card: Card) -> str:
    if card.holders is None:
        return "; the driver does not say here who holds the rest"
    if not card.holders:
        return ""
    named = [holder_text(holder) for holder in card.holders[:SHOWN_HOLDERS]]
    more = len(card.holders) - len(named)
    return f"; held by {', '.join(named)}" + (f" and {more} more" if more else "")


def holder_text(holder: Holder) -> str:
    """A process as a person looks for it."""
    held = "" if holder.held_mib is None else f"{holder.held_mib} MiB, "
    return f"{holder.name or 'a process that is not visible here'} ({held}pid {holder.pid})"


def _packages(packages: Packages | Unknown, facts: Facts) -> Finding:
    if isinstance(packages, Unknown):
        return Finding("torch", "failure", packages.reason, "`make install` sets up what is locked")
    if packages.absent:
        listed = ", ".join(packages.absent)
        fix = "`make install`, or take a profile of llama-server"
        return Finding("torch", "failure", f"not installed, and this profile needs it: {listed}", fix)
    built = f"for CUDA {_dotted(packages.cuda)}" if packages.cuda else "a build for the CPU"
    text = f"torch {packages.torch}, {built}"
    if facts.card_use == "never" or not facts.cards:
        return Finding("torch", "ok", text)
    level, why, fix = _torch_on_card(packages, facts)
    return Finding("torch", level, text + why, fix)


def _torch_on_card(packages: Packages, facts: Facts) -> tuple[Level, str, str]:
    cuda = facts.driver.cuda if isinstance(facts.driver, Driver) else None
    if packages.cuda is None:
        return (
            _without_card(facts),
            ": the card is not used",
            "`make install` in a fresh .venv takes the CUDA build",
        )
    if cuda is not None and packages.cuda[0] > cuda[0]:
        least = LEAST_DRIVER.get(packages.cuda[0])
        newer = f"a driver of {least} or later" if least else "a newer driver"
        return _without_card(facts), f": the driver runs CUDA up to {_dotted(cuda)}", f"install {newer}"
    too_old = [card for card in facts.cards if card.used and card.capability and card.capability < OLDEST]
    if too_old:
        has = f"{too_old[0].name} has compute capability {_dotted(too_old[0].capability)}"
        fix = "take a profile of llama-server, or DEVICE=cpu"
        return "failure", f": {has}, its wheels begin at {_dotted(OLDEST)}", fix
    return "ok", "", ""


def _docker(facts: Facts) -> Iterator[Finding]:
    docker = facts.docker
    if docker is None:
        fix = "it is only needed for containers: `make serve` goes without"
        yield Finding("docker", "warning", "no docker command here", fix)
    elif isinstance(docker, Unknown):
        fix = "start it, or give this user the right to its socket; `make serve` goes without"
        yield Finding("docker", "warning", f"the Docker engine does not answer: {docker.reason}", fix)
    else:
        yield Finding("docker", "ok", f"engine {docker.version}")
        yield _toolkit(docker, facts)
        yield _cgroup(docker, facts)


def _toolkit(docker: Docker, facts: Facts) -> Finding:
    if "nvidia" in docker.runtimes:
        return Finding("toolkit", "ok", "Docker has the NVIDIA runtime")
    if docker.cdi:
        return Finding("toolkit", "ok", f"Docker knows cards by CDI: {', '.join(docker.cdi[:SHOWN_HOLDERS])}")
    text = "Docker is without the NVIDIA runtime: the plain compose file will not start here"
    has_card = bool(facts.cards or facts.cards_on_bus)
    return Finding("toolkit", "warning", text, TOOLKIT if has_card else f"use the CPU overlay: {CPU_OVERLAY}")


def _cgroup(docker: Docker, facts: Facts) -> Finding:
    name = docker.cgroup_driver or "unknown"
    if name != "systemd":
        return Finding("cgroup", "ok", f"cgroup driver {name}")
    if not facts.cards or "nvidia" not in docker.runtimes:
        return Finding("cgroup", "ok", "cgroup driver systemd; no container has a card to lose")
    if facts.unlinked_nodes == ():
        return Finding("cgroup", "ok", "cgroup driver systemd; /dev/char leads to every node of the driver")
    text = "cgroup driver systemd: after `systemctl daemon-reload` containers lose their card"
    if facts.unlinked_nodes is None:
        return Finding("cgroup", "warning", f"{text} unless /dev/char of its machine leads there", RELOAD_FIX)
    nodes = ", ".join(facts.unlinked_nodes[:SHOWN_HOLDERS])
    return Finding("cgroup", "warning", f"{text} (no link in /dev/char to {nodes})", RELOAD_FIX)


def _dotted(version: tuple[int, int] | None) -> str:
    return "" if version is None else f"{version[0]}.{version[1]}"
