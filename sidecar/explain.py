"""What would be served, and why so: every effective value with what set it. Values in, values out.

The one place that looks is `engine_command`, which asks the llama-server that is here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from sidecar.budget import MIB
from sidecar.engines import check_torch, llama_binary, worker_config
from sidecar.engines.inherited import inherited
from sidecar.errors import ConfigError, StartError
from sidecar.explain_limits import Said, Sizes, flags, limits
from sidecar.explain_rows import Row, origin, shown
from sidecar.fit import Fit, fit, sees_cards
from sidecar.gpu import GpuLook, GpuUnreadable
from sidecar.llama_args import llama_said
from sidecar.model_files import expected_files
from sidecar.overrides import asks_for_more
from sidecar.pinning import child_environment
from sidecar.profiles import OWN, Profile, clamped
from sidecar.registry import load_registry
from sidecar.settings import Settings
from sidecar.settings_table import TABLE
from sidecar.unused import Unused, unused, unused_settings

# The settings that stand over a key of the profile; of the second kind, only where the key changed.
OVER: dict[str, tuple[str, ...]] = {
    "gpu.max_model_len": ("context",),
    "gpu.max_concurrent_requests": ("parallel",),
    "gpu.max_batch_tokens": ("batch_size",),
    "llamacpp.ctx_size": ("context",),
    "llamacpp.n_gpu_layers": ("n_gpu_layers",),
    "llamacpp.threads": ("threads",),
    "llamacpp.parallel": ("parallel",),
    "llamacpp.batch_size": ("batch_size",),
    "transformers.quantization": ("load_in_8bit", "load_in_4bit"),
}
MODEL = ("model_path", "model_id")
ENGINE_SETTINGS = {
    "transformers": ("device", "threads", "vram_budget_mib", "memory_budget_mib", "auto_quantize"),
    "llamacpp": ("device", "vram_budget_mib", "llama_server", "cache_dir"),
}
CHOICE = ("profile", "profiles_path", "cuda_visible_devices", "autoload")
SECRET = ("api_key", "together_api_key", "openai_api_key")


@dataclass(frozen=True, slots=True)
class Command:
    """How the child is started. `notes` say what the line itself can not; `on_gpu` None is not known.

    `said` are llama-server's words, flag by flag, with whose wish each is. `refusal` is why it
    can not be started here, whatever fits.
    """

    environment: Mapping[str, str]
    words: tuple[str, ...]
    notes: tuple[str, ...] = ()
    on_gpu: bool | None = None
    refusal: StartError | None = field(default=None, compare=False)
    said: Said = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that `llm-sidecar plan` says."""

    profile: Profile
    fit: Fit
    keys: tuple[Row, ...]
    unsaid: tuple[str, ...]
    limits: tuple[Row, ...]
    settings: tuple[Row, ...]
    unused: Unused
    command: Command
    flags: tuple[Row, ...] = ()


async def explain(
    settings: Settings, seen: GpuLook, memory_mib: int, made_for: int | None = None
) -> Explanation:
    """`memory_mib` is all the main memory that we may have; `made_for` the context of the model's header.

    Raises what a start with these settings would raise before it loads anything.
    """
    registry, over = load_registry(settings.profiles_path), settings.overrides()
    written = registry.written(settings.profile, over)
    profile = registry.select(settings.profile, over)
    keys = tuple(_keys(written if written.backend == profile.backend else profile, profile, settings))
    served, on_card = clamped(profile, made_for), sees_cards(profile, settings, seen)
    command = await engine_command(served, settings, on_gpu=on_card)
    on_card = on_card if command.on_gpu is None else command.on_gpu
    of_keys = {row.name: row for row in keys if row.value}
    sizes = Sizes(profile, served, settings, of_keys, on_card=on_card, memory_mib=memory_mib)
    return Explanation(
        profile=profile,
        fit=fit(profile, settings, seen, memory_mib, at_least=asks_for_more(profile, written)),
        keys=tuple(row for row in keys if row.value),
        unsaid=tuple(row.name for row in keys if not row.value),
        limits=limits(sizes),
        settings=tuple(_settings(profile, settings)),
        unused=_in_vain(profile, settings, keys, command.on_gpu),
        command=command,
        flags=flags(sizes, command.said),
    )


def _in_vain(profile: Profile, settings: Settings, keys: tuple[Row, ...], on_gpu: bool | None) -> Unused:
    """A value that a setting put in a key's place is the setting's: it is told once, by that name."""
    replaced = {row.name for row in keys if row.origin not in ("profile", "default")}
    own = (told for told in unused(profile, on_gpu) if told[0] not in replaced)
    return (*own, *unused_settings(profile, settings, on_gpu))


def _keys(written: Profile, profile: Profile, settings: Settings) -> Iterator[Row]:
    for name, before, after, is_set in _pairs(written, profile):
        yield Row(name, shown(after), _origin(name, before, after, is_set, profile, settings))


def _pairs(written: BaseModel, now: BaseModel, above: str = "") -> Iterator[tuple[str, object, object, bool]]:
    for name in type(now).model_fields:
        before, after = getattr(written, name), getattr(now, name)
        if isinstance(before, BaseModel) and isinstance(after, BaseModel):
            if name in ("gpu", getattr(now, "backend", "")):
                yield from _pairs(before, after, f"{name}.")
        elif name not in ("name", "display_name", "description", "llamacpp", "transformers"):
            yield f"{above}{name}", before, after, name in written.model_fields_set


def _origin(
    name: str, before: object, after: object, is_set: bool, profile: Profile, settings: Settings
) -> str:
    said = [field for field in OVER.get(name, ()) if getattr(settings, field) not in (None, False)]
    if not said and (before != after or (profile.name == OWN and is_set)):
        said = [field for field in MODEL if field in settings.origins]
    if said:
        return origin(settings, said[0])
    return "profile" if is_set else "default"


def machine(settings: Settings, seen: GpuLook, memory_mib: int) -> str:
    """The cards of this machine, and what may be used of each; without one, its main memory."""
    if isinstance(seen, GpuUnreadable) or not seen:
        return f"no NVIDIA card here: what fits runs on the CPU, in {memory_mib} MiB of main memory"
    cards = ", ".join(f"{card.name} {card.memory_total_bytes // MIB} MiB" for card in seen)
    return f"{cards}; VRAM_BUDGET {settings.vram_budget_mib} MiB on each"


def _settings(profile: Profile, settings: Settings) -> Iterator[Row]:
    over = {field for fields in OVER.values() for field in fields} | set(MODEL)
    others = {field for fields in ENGINE_SETTINGS.values() for field in fields}
    mine = (*CHOICE, *ENGINE_SETTINGS[profile.backend])
    for row in TABLE:
        if row.field in mine or row.field not in (over | others):
            value = getattr(settings, row.field)
            text = "(set)" if value and row.field in SECRET else shown(value)
            text = f"{text} MiB" if text and row.field.endswith("_mib") else text
            yield Row(row.names[0], text, origin(settings, row.field))


async def engine_command(profile: Profile, settings: Settings, *, on_gpu: bool) -> Command:
    """The child's command line; from the newest spellings where there is no binary to ask."""
    environment = child_environment(profile, settings)
    if profile.backend == "transformers":
        told = worker_config(profile, settings)
        values = ((name, getattr(told, name)) for name in told.__struct_fields__)
        listed = ", ".join(f"{name} {shown(value)}" for name, value in values if shown(value))
        told_how = f"and --fd N, its end of a socket pair, over which it is told: {listed}"
        words, refusal = (sys.executable, "-m", "sidecar.worker"), _worker_refusal(settings, on_gpu=on_gpu)
        return Command(environment, words, (told_how,), refusal=refusal)
    return await _llama_command(profile, settings, environment, on_gpu=on_gpu)


def _worker_refusal(settings: Settings, *, on_gpu: bool) -> ConfigError | None:
    try:
        check_torch()
    except ConfigError as error:
        return error
    if settings.device.startswith("cuda") and not on_gpu:
        return ConfigError(f"DEVICE is {settings.device}, and no card is seen; accepted here: auto, cpu.")
    return None


async def _llama_command(
    profile: Profile, settings: Settings, environment: Mapping[str, str], *, on_gpu: bool
) -> Command:
    assert profile.llamacpp is not None
    files = expected_files(profile.llamacpp, settings.cache_dir)
    absent = "not here" if profile.llamacpp.model_path else "not here yet"
    notes = [f"{absent}: {file}" for file in (files.model, files.mmproj) if file and not file.is_file()]
    notes.append("--port 0 stands for a free port, taken at each start; its key is in LLAMA_API_KEY")
    known = refusal = None
    path, on_gpu = settings.llama_server or llama_binary.NAME, on_gpu and settings.device != "cpu"
    try:
        path = llama_binary.find(settings.llama_server, os.environ)
        binary = await llama_binary.ask(path, {**inherited(), **environment})
        known, on_gpu = binary.flags, False
        on_gpu = binary.on_gpu(settings.device)
    except ConfigError as error:
        refusal = error
    if known is None:
        notes.append("until there is a llama-server, each flag is shown in its newest spelling")
    said = llama_said(profile, files, known, port=0, on_gpu=on_gpu)
    words = (path, *(word for _, words in said for word in words))
    return Command(environment, words, tuple(notes), on_gpu, refusal, tuple(said))
