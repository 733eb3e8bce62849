"""`llm-sidecar doctor`: what is here, what is missing, and what to do about it.

Looks and never changes anything. Each finding stands alone: one that can not be made is a finding.
"""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sidecar import gpu, weights
from sidecar.budget import MIB
from sidecar.errors import StartError
from sidecar.listening import listening, url_of
from sidecar.model_files import expected_files
from sidecar.profiles import Profile
from sidecar.registry import load_registry
from sidecar.settings import Settings

DOCKER_SECONDS = 10
ASK_SECONDS = 3
HEALTH_BYTES = 65536
SPARE_GIB = 20
CPU_OVERLAY = "docker compose -f compose.yaml -f docker/compose.cpu.yaml up llm-sidecar"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `fix` is what to do unless it is ok."""

    name: str
    level: Literal["ok", "warning", "failure"]
    text: str
    fix: str = ""


def examine(settings: Settings, *, in_container: bool = False) -> list[Finding]:
    """Everything, in the order in which a start would need it; in a container nobody misses Docker."""
    card = _card(settings)
    wanted = not in_container or shutil.which("docker") is not None
    docker = [_docker(has_card=card.level == "ok")] if wanted else []
    return [_profile(settings), card, *docker, _disk(), _port(settings)]


def show(findings: list[Finding]) -> str:
    """The findings as a person reads them."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<8} {finding.name:<8} {finding.text}\n")
        if finding.fix and finding.level != "ok":
            lines.append(f"{'':<8} {'':<8} -> {finding.fix}\n")
    return "".join(lines)


def _profile(settings: Settings) -> Finding:
    try:
        profile = load_registry(settings.profiles_path).select(settings.profile, settings.overrides())
    except StartError as error:
        return Finding("profile", "failure", error.message, "choose another with LLM_PROFILE_NAME")
    return Finding("profile", "ok", _described(profile, settings.cache_dir))


def _described(profile: Profile, cache_dir: Path | None) -> str:
    return f"{profile.name}: context {profile.context}; {_whereabouts(profile, cache_dir)}"


def _whereabouts(profile: Profile, cache_dir: Path | None) -> str:
    if profile.backend == "llamacpp":
        assert profile.llamacpp is not None
        model = expected_files(profile.llamacpp, cache_dir).model
        origin = profile.llamacpp.hf_repo_id or "nowhere: no hf_repo_id is given"
        return "its file is here" if model.is_file() else f"{model} comes from {origin}"
    assert profile.transformers is not None
    sources = profile.transformers.sources
    here = weights.find_here(sources) is not None
    return "its files are here" if here else f"its files come from {' or '.join(sources)}"


def _card(settings: Settings) -> Finding:
    seen = gpu.look()
    if isinstance(seen, gpu.GpuUnreadable) or not seen:
        why = seen.reason if isinstance(seen, gpu.GpuUnreadable) else "the driver lists no card"
        fix = "the CPU is used; for a card, install its driver and run nvidia-smi"
        return Finding("gpu", "warning", f"no NVIDIA card can be used here ({why})", fix)
    first = seen[0]
    free_mib = (first.memory_total_bytes - first.memory_used_bytes) // MIB
    text = f"{first.name}, {free_mib} of {first.memory_total_bytes // MIB} MiB free"
    if free_mib < settings.vram_budget_mib:
        less = f"{text}, less than VRAM_BUDGET ({settings.vram_budget_mib} MiB)"
        fix = "lower VRAM_BUDGET, or end what else holds memory: nvidia-smi lists it"
        return Finding("gpu", "warning", less, fix)
    return Finding("gpu", "ok", text)


def _docker(*, has_card: bool) -> Finding:
    if shutil.which("docker") is None:
        fix = "it is only needed for containers: `make serve` goes without"
        return Finding("docker", "warning", "no docker command here", fix)
    try:
        told = json.loads(_output("docker", "info", "--format", "{{json .}}"))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        told = {"ServerErrors": [type(error).__name__]}
    return docker_finding(told, has_card=has_card)


def docker_finding(info: Mapping[str, Any], *, has_card: bool) -> Finding:
    """What `docker info` says about cards: whether a container can be given one."""
    if errors := info.get("ServerErrors"):
        fix = "start it, or give this user the right to its socket"
        return Finding("docker", "failure", f"the Docker engine does not answer: {errors[0]}", fix)
    engine = f"engine {info.get('ServerVersion', 'unknown')}"
    if "nvidia" in info.get("Runtimes", {}) or info.get("DiscoveredDevices"):
        return Finding("docker", "ok", f"{engine} with the NVIDIA runtime")
    text = f"{engine} without the NVIDIA runtime: the plain compose file will not start here"
    fix = "install the NVIDIA container toolkit and run `nvidia-ctk runtime configure --runtime=docker`"
    return Finding("docker", "warning", text, fix if has_card else f"use the CPU overlay: {CPU_OVERLAY}")


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=DOCKER_SECONDS, check=True)
    return done.stdout


def _disk() -> Finding:
    free_gib = shutil.disk_usage(Path.home()).free / 1024**3
    text = f"{free_gib:.0f} GiB free in {Path.home()}"
    if free_gib < SPARE_GIB:
        return Finding("disk", "warning", text, f"an 8B model and the image take about {SPARE_GIB} GiB")
    return Finding("disk", "ok", text)


def _port(settings: Settings) -> Finding:
    try:
        with listening(settings.host, settings.port) as listener:
            return Finding("port", "ok", f"{settings.host} port {listener.getsockname()[1]} is free")
    except StartError as error:
        if (model := _served_at(url_of(settings.host, settings.port))) is not None:
            text = f"{settings.host} port {settings.port}: an LLM Sidecar runs there and serves {model}"
            return Finding("port", "ok", text)
        return Finding(
            "port", "failure", error.message, "end what listens there, or choose another with PORT"
        )


def _served_at(url: str) -> str | None:
    """The model of the sidecar that answers there; None when it is none."""
    # No proxy of the environment stands between this machine and itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=ASK_SECONDS) as answer:
            told = answer.read(HEALTH_BYTES)
    except urllib.error.HTTPError as error:
        told = error.read(HEALTH_BYTES)  # 503 while it loads, with the same body
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return _model_in(told)


def _model_in(health: bytes) -> str | None:
    try:
        body = json.loads(health)
        return str(body["model"]) if "model_loaded" in body else None
    except (ValueError, LookupError, TypeError):
        return None
