"""What is to be said of a start: the profile, its plan, its files, its program, its port. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.doctor import card
from sidecar.doctor.facts import (
    Disk,
    Facts,
    Finding,
    Missing,
    PlanSeen,
    Port,
    Unknown,
)

# What stays free besides what is fetched: logs, and the hub's own small files.
SPARE_MIB = 64


def findings(facts: Facts) -> list[Finding]:
    """Everything, in the order in which a start would need it."""
    return [*_profile(facts), *card.findings(facts), *_binary(facts), _disk(facts.disk), _port(facts.port)]


def _profile(facts: Facts) -> Iterator[Finding]:
    profile, plan = facts.profile, facts.plan
    if isinstance(profile, Unknown):
        yield Finding("profile", "failure", profile.reason, "choose another with LLM_PROFILE_NAME")
        return
    yield Finding("profile", "ok", f"{profile.name}: context {profile.context}; {profile.whereabouts}")
    if isinstance(plan, Unknown):
        fix = f"`llm-sidecar plan {profile.name}` asks the hub again"
        yield Finding("plan", "warning", f"not known: {plan.reason}", fix)
    elif isinstance(plan, PlanSeen) and plan.fits:
        yield Finding("plan", "ok", plan.sentence)
    elif isinstance(plan, PlanSeen):
        fix = f"`llm-sidecar plan {profile.name}` shows the arithmetic, `llm-sidecar profiles` what fits"
        yield Finding("plan", "failure", plan.sentence, fix)


def _binary(facts: Facts) -> Iterator[Finding]:
    binary = facts.binary
    if binary is None:
        return
    if isinstance(binary, Unknown):
        text, _, fix = binary.reason.partition("; ")
        yield Finding("binary", "failure", text, fix)
        return
    sees = ", ".join(binary.devices) or "no card"
    text = f"{binary.path}, {binary.version or 'of an unknown version'}, sees {sees}"
    if binary.refused:
        fix = "take a newer llama-server, or leave that key out of the profile"
        yield Finding("binary", "failure", f"{text}; {binary.refused}", fix)
    elif facts.cards and not binary.devices and facts.card_use != "never":
        fix = "take a build for CUDA: docker/llamacpp.Dockerfile compiles one"
        yield Finding("binary", "warning", f"{text}: the model would run on the CPU", fix)
    else:
        yield Finding("binary", "ok", text)


def _disk(disk: Disk | Unknown) -> Finding:
    if isinstance(disk, Unknown):
        return Finding("disk", "warning", disk.reason, "look at HF_HOME and LLM_CACHE_DIR")
    text = f"{_gib(disk.free_mib)} GiB free in {disk.folder}"
    missing = disk.missing
    if isinstance(missing, Unknown):
        return Finding("disk", "warning", f"{text}; what is to be fetched is not known: {missing.reason}",
                       "the room is looked at again before the first byte is fetched")  # fmt: skip
    if missing is None or not missing.files:
        return Finding("disk", "ok", f"{text}; nothing is left to fetch")
    text = f"{text}; {_files(missing)} of {_gib(missing.size_mib)} GiB will come from {missing.origin}"
    other = "set HF_HOME (LLM_CACHE_DIR for a model_root) to another disk"
    if not disk.writable:
        return Finding(
            "disk", "failure", f"{text}, and this user may not write there", f"allow it, or {other}"
        )
    if missing.size_mib + SPARE_MIB > disk.free_mib:
        return Finding("disk", "failure", text, f"make room, or {other}")
    return Finding("disk", "ok", text)


def _files(missing: Missing) -> str:
    return "1 file" if missing.files == 1 else f"{missing.files} files"


def _gib(mib: float) -> str:
    return f"{mib / 1024:.3g}"


def _port(port: Port | Unknown) -> Finding:
    if isinstance(port, Unknown):
        return Finding("port", "failure", port.reason, "choose another with HOST or PORT")
    where = f"{port.host} port {port.number}"
    if not port.refused:
        return Finding("port", "ok", f"{where} is free")
    if port.served is not None:
        return Finding("port", "ok", f"{where}: an LLM Sidecar runs there and serves {port.served}")
    who = f"; {card.holder_text(port.holder)} listens there" if port.holder else ""
    fix = "end what listens there, or choose another with PORT"
    return Finding("port", "failure", f"{port.refused}{who}", fix)
