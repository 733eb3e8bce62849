"""What was said and changes nothing, and why. Pure.

A key that looks as if it did something is worse than one that is refused: whoever wrote it is told.
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.profiles import LlamaCpp, Profile
from sidecar.settings import Settings

Unused = tuple[tuple[str, str], ...]
_ON_CPU = "it runs on the CPU, and this is about cards"
_ON_CARDS = "it runs on cards, where VRAM_BUDGET is the limit"
# What llama-server is told, or held to, on cards alone.
_OF_CARDS = {
    "gpu": ("num_gpus", "tensor_parallel_size", "device_ids", "gpu_memory_fraction"),
    "llamacpp": ("n_gpu_layers", "split_mode", "tensor_split", "main_gpu", "cpu_moe", "n_cpu_moe"),
}


def unused(profile: Profile, on_gpu: bool | None = None) -> Unused:
    """The keys that the profile sets without any effect, each with the reason.

    `on_gpu` is whether llama-server runs on cards; None is not known.
    """
    found = dict(_of_cards(profile))
    if profile.task_type == "completion":
        found["task_type"] = "chat and completion are served alike"
    other = "transformers" if profile.backend == "llamacpp" else "llamacpp"
    if getattr(profile, other) is not None:
        found[other] = f"the backend is {profile.backend}"
    if profile.backend == "llamacpp" and profile.llamacpp is not None:
        found.update(_of_llamacpp(profile, profile.llamacpp))
        if on_gpu is False:
            found.update(_without_cards(profile))
    return tuple(found.items())


def unused_settings(profile: Profile, settings: Settings, on_gpu: bool | None = None) -> Unused:
    """The flags and variables that were set without any effect on this profile, each with the reason."""
    reasons = dict(_of_settings(profile, settings))
    if on_gpu and profile.backend == "llamacpp":
        reasons["memory_budget_mib"] = _ON_CARDS
    if on_gpu is False and profile.backend == "llamacpp":
        reasons |= dict(_settings_without_cards(settings))
    return tuple((settings.origins[name], why) for name, why in reasons.items() if name in settings.origins)


def _of_settings(profile: Profile, settings: Settings) -> Iterator[tuple[str, str]]:
    if settings.model_path is not None:
        yield "model_id", f"{settings.origins.get('model_path', 'MODEL_PATH')} goes before it"
    if profile.backend == "llamacpp":
        yield "auto_quantize", "a GGUF file is quantised already"
    else:
        yield "n_gpu_layers", "the transformers engine has all layers in one place"
        yield "llama_server", "the backend is transformers"
        yield "cache_dir", "it is for GGUF files; HF_HOME is for these"


def _of_cards(profile: Profile) -> Iterator[tuple[str, str]]:
    gpu, said = profile.gpu, profile.gpu.model_fields_set
    if profile.backend == "transformers":
        if "tensor_parallel_size" in said:
            yield "gpu.tensor_parallel_size", "the transformers engine runs on one card"
        if "gpu_memory_fraction" in said:
            yield "gpu.gpu_memory_fraction", "VRAM_BUDGET alone limits the transformers engine"
        if gpu.cards > 1:
            yield "gpu.num_gpus" if "num_gpus" in said else "gpu.device_ids", "it runs on one card, the first"
        return
    if "num_gpus" in said and gpu.device_ids:
        yield "gpu.num_gpus", "gpu.device_ids says which cards; the two are only held equal"


def _without_cards(profile: Profile) -> Iterator[tuple[str, str]]:
    for name, keys in _OF_CARDS.items():
        block = getattr(profile, name)
        for key in keys:
            value = getattr(block, key)
            if value or (key == "main_gpu" and value is not None):  # 0 is a card there, elsewhere none
                yield f"{name}.{key}", _ON_CPU


def _settings_without_cards(settings: Settings) -> Iterator[tuple[str, str]]:
    yield "vram_budget_mib", _ON_CPU
    if settings.n_gpu_layers:
        yield "n_gpu_layers", _ON_CPU
    if settings.cuda_visible_devices not in (None, "", "-1"):
        yield "cuda_visible_devices", _ON_CPU


def _of_llamacpp(profile: Profile, block: LlamaCpp) -> Iterator[tuple[str, str]]:
    yield from _of_listening(block)
    yield from _of_limits(profile, block)
    yield from _of_files(block)
    yield from _of_splitting(profile, block)
    if block.pooling and not profile.supports_embeddings:
        yield "llamacpp.pooling", "supports_embeddings is false"
    if block.image_hosts and not profile.supports_vision:
        yield "llamacpp.image_hosts", "supports_vision is false"


def _of_listening(block: LlamaCpp) -> Iterator[tuple[str, str]]:
    why = {
        "host": "llama-server listens on 127.0.0.1 for the sidecar alone; the sidecar listens on HOST",
        "port": "llama-server gets a free port at each start; the sidecar listens on PORT",
    }
    for name, reason in why.items():
        if name in block.model_fields_set:
            yield f"llamacpp.{name}", reason


def _of_limits(profile: Profile, block: LlamaCpp) -> Iterator[tuple[str, str]]:
    gpu = profile.gpu
    if gpu.max_model_len and block.ctx_size and gpu.max_model_len >= block.ctx_size:
        yield "gpu.max_model_len", f"it limits llamacpp.ctx_size ({block.ctx_size}), which is not larger"
    if gpu.max_concurrent_requests and block.parallel and gpu.max_concurrent_requests >= block.parallel:
        yield (
            "gpu.max_concurrent_requests",
            f"it limits llamacpp.parallel ({block.parallel}), which is not larger",
        )
    if gpu.max_batch_tokens and block.ubatch_size:
        yield "gpu.max_batch_tokens", "llamacpp.ubatch_size goes before it"


def _of_files(block: LlamaCpp) -> Iterator[tuple[str, str]]:
    if block.model_path:
        # Where the second file comes from is still asked.
        rest = () if block.mmproj_filename else ("model_root", "hf_repo_id", "hf_revision")
        for name in ("hf_filename", *rest):
            if getattr(block, name):
                yield f"llamacpp.{name}", "llamacpp.model_path (or MODEL_PATH) names the file"
    if block.mmproj_sha256 and not block.mmproj_filename:
        yield "llamacpp.mmproj_sha256", "there is no llamacpp.mmproj_filename"


def _of_splitting(profile: Profile, block: LlamaCpp) -> Iterator[tuple[str, str]]:
    if profile.gpu.tensor_parallel_size is not None and block.split_mode is not None:
        yield "gpu.tensor_parallel_size", "llamacpp.split_mode says how the model is spread"
    mode = profile.spread
    if block.tensor_split and mode == "none":
        yield "llamacpp.tensor_split", "the model is on one card (split mode none)"
    if block.main_gpu is not None and mode not in ("none", "row"):
        yield "llamacpp.main_gpu", f"it counts with split_mode none or row, and this is {mode}"
