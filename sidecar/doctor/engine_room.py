"""What would run the model: the profile's plan, its llama-server, its Python packages."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
from importlib import metadata
from pathlib import Path
from typing import Literal

from sidecar import room, weights
from sidecar.doctor.facts import Binary, Packages, PlanSeen, Serving, Unknown
from sidecar.engines import llama_binary
from sidecar.engines.inherited import inherited
from sidecar.errors import ConfigError
from sidecar.estimate import Estimate
from sidecar.fit import fit
from sidecar.gpu import GpuLook
from sidecar.llama_args import llama_args
from sidecar.model_files import expected_files
from sidecar.pinning import child_environment, visible_cards
from sidecar.planning import planned, target_here, verdict
from sidecar.profiles import Profile
from sidecar.settings import Settings

# What the worker imports first.
PACKAGES = ("torch", "transformers", "gptqmodel", "safetensors")
TORCH_CUDA = re.compile(r"^cuda\b.*=\s*'(\d+)\.(\d+)", re.MULTILINE)


def serving(profile: Profile | Unknown, settings: Settings) -> Serving | Unknown:
    """The profile as it would be served."""
    if isinstance(profile, Unknown):
        return profile
    where = _whereabouts(profile, settings.cache_dir)
    return Serving(profile.name, profile.backend, profile.context, where, _card_use(profile, settings))


def _card_use(profile: Profile, settings: Settings) -> Literal["never", "if there is one", "always"]:
    block = profile.transformers if profile.backend == "transformers" else None
    if settings.device.startswith("cuda") or (block and block.quantization in ("8bit", "4bit")):
        return "always"
    return "never" if visible_cards(profile, settings) in ("", "-1") else "if there is one"


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


def plan(profile: Profile | Unknown, settings: Settings, seen: GpuLook) -> PlanSeen | Unknown | None:
    """The plan for this machine; of several cards, what each of them takes."""
    if isinstance(profile, Unknown):
        return None
    memory_mib = room.memory_mib()
    target = target_here(profile, settings, seen, memory_mib)
    found = planned([profile], [target], settings.cache_dir, lambda _: None)[0][0]
    if not isinstance(found, Estimate):
        here = verdict(found, target, fit(profile, settings, seen, memory_mib))
        refused = here.verdict in ("does not fit", "can not start")
        return PlanSeen(False, f"{here.verdict}: {here.why}") if refused else Unknown(found.why)
    if target.device == "cpu" or found.plan is None:
        return PlanSeen(found.plan is not None, found.sentence)
    cards = max(profile.gpu.cards, 1) if profile.backend == "llamacpp" else 1
    return PlanSeen(True, found.sentence, found.demand.least_mib / cards, found.plan.total_mib / cards)


def binary(profile: Profile | Unknown, settings: Settings) -> Binary | None:
    """The llama-server of a GGUF profile. Raises ConfigError where there is none that runs."""
    if isinstance(profile, Unknown) or profile.backend != "llamacpp":
        return None
    path = llama_binary.find(settings.llama_server, os.environ)
    environment = {**inherited(), **child_environment(profile, settings)}
    asked = asyncio.run(llama_binary.ask(path, environment))
    return Binary(path, asked.flags.version, asked.devices, _refused(profile, settings, asked))


def _refused(profile: Profile, settings: Settings, asked: llama_binary.Binary) -> str:
    """What of the profile this build can not be told."""
    assert profile.llamacpp is not None
    files = expected_files(profile.llamacpp, settings.cache_dir)
    try:
        llama_args(profile, files, asked.flags, port=0, on_gpu=asked.on_gpu(settings.device))
    except ConfigError as error:
        return error.message
    return ""


def packages(profile: Profile | Unknown) -> Packages | None:
    """What the transformers engine needs, without importing it."""
    if isinstance(profile, Unknown) or profile.backend != "transformers":
        return None
    absent = tuple(name for name in PACKAGES if importlib.util.find_spec(name) is None)
    if "torch" in absent:
        return Packages(absent=absent)
    return Packages(metadata.version("torch"), _torch_cuda(), absent)


def _torch_cuda() -> tuple[int, int] | None:
    """What torch was built for, as its own version.py has it: importing torch takes seconds."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    found = TORCH_CUDA.search(Path(spec.origin).with_name("version.py").read_text("utf-8"))
    return (int(found[1]), int(found[2])) if found else None
