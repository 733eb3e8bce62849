"""The engines, and the one place that knows which profile gets which."""

from __future__ import annotations

import importlib.util
import os
from functools import partial

from sidecar import room
from sidecar.engine import Engine
from sidecar.engines import llama_binary
from sidecar.engines.llama_launch import Launch
from sidecar.engines.llamaserver import LlamaServerEngine
from sidecar.engines.worker import WorkerEngine
from sidecar.errors import ConfigError
from sidecar.events import Events
from sidecar.fetch import Job
from sidecar.gpu import look
from sidecar.pinning import child_environment
from sidecar.planning import Target, target
from sidecar.profiles import Profile
from sidecar.settings import Settings
from sidecar.worker.messages import WorkerConfig


def open_engine(profile: Profile, settings: Settings, events: Events | None = None) -> Engine:
    """The engine for the profile, not yet started. Raises ConfigError where its program is missing."""
    if profile.backend == "transformers":
        check_torch()
        config, environment = worker_config(profile, settings), child_environment(profile, settings)
        return WorkerEngine(config, environment, events=events)
    return LlamaServerEngine(llama_launch(profile, settings), events=events)


def check_torch() -> None:
    """Raises ConfigError without torch, as in the images of llama.cpp. Does not import it."""
    if importlib.util.find_spec("torch") is None:
        raise ConfigError(
            "backend `transformers` needs torch, which is not installed here; take a profile with backend "
            "`llamacpp` (`llm-sidecar profiles` lists them), or the image of docker/Dockerfile (without "
            "Docker: `make install`)"
        )


def llama_launch(profile: Profile, settings: Settings) -> Launch:
    """What llama-server is started with, from the profile and what stands over it."""
    return Launch(
        profile=profile,
        binary=llama_binary.find(settings.llama_server, os.environ),
        fetch=Job(profile, settings.cache_dir),
        wanted_device=settings.device,
        environment=child_environment(profile, settings),
        held_to=partial(_held_to, profile, settings),
    )


def _held_to(profile: Profile, settings: Settings, on_gpu: bool) -> Target:
    seen = look() if on_gpu else ()
    return target(profile, settings, seen, room.memory_mib(), on_card=on_gpu)


def worker_config(profile: Profile, settings: Settings) -> WorkerConfig:
    """What the worker must know, from the profile and what stands over it."""
    block = profile.transformers
    assert block is not None
    return WorkerConfig(
        sources=tuple(block.sources),
        context=profile.context,
        context_asked=profile.gpu.max_model_len is not None,
        slots=profile.slots,
        batch_tokens=profile.batch_tokens,
        kv_tokens=block.kv_tokens,
        default_max_tokens=block.default_max_tokens,
        quantization=block.quantization,
        auto_quantize=settings.auto_quantize,
        device=settings.device,
        threads=settings.threads,
        vram_budget_mib=settings.vram_budget_mib,
        memory_budget_mib=settings.memory_budget_mib,
        page_tokens=block.page_tokens,
    )
