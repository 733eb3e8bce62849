"""The one table of what can be set: names, flag, what is accepted, what it does.

A row says how a text becomes a value; where the text comes from is `sidecar.settings`' business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.settings_parse import hosts, matching, seconds, size_mib, truth, whole


@dataclass(frozen=True, slots=True)
class Setting:
    """One row. `names` are environment variables, the canonical one first."""

    field: str
    names: tuple[str, ...]
    parse: Callable[[str], Any]
    accepts: str
    text: str
    flag: str | None = None
    switch: bool = False
    example: str = ""


HUB_ID = r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}(@[\w./-]{1,64})?"
_GGUF_OF_IT = r"(:[A-Za-z0-9][\w ./+-]{0,200}\.gguf)?"
DEVICE = r"auto|cpu|cuda(:\d{1,2})?"
_CARDS = r"-1|(?:\d{1,4}|GPU-[\w-]+|MIG-[\w/-]+)(?:,(?:\d{1,4}|GPU-[\w-]+|MIG-[\w/-]+))*"
_SIZES = "a size with its unit, such as 10.5GiB or 10752MiB"
_ADDRESS = r"[A-Za-z0-9.:_-]{1,255}"

TABLE: tuple[Setting, ...] = (
    Setting(
        "profile",
        ("LLM_PROFILE_NAME",),
        matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"),
        "the name of a profile",
        "Which profile of the registry is served; `embedded` when nothing else is said.",
        "profile",
    ),
    Setting(
        "profiles_path",
        ("LLM_PROFILES_CONFIG_PATH",),
        Path,
        "the path of a YAML file",
        "The registry of profiles.",
        "profiles_config",
    ),
    Setting(
        "model_id",
        ("MODEL_ID",),
        matching(HUB_ID + _GGUF_OF_IT),
        "a hub id such as owner/name or owner/name@revision, or a file of one: owner/name:file.gguf",
        "A model of the hub in place of the profile's; a GGUF file of it is served by llama-server.",
        "model_id",
    ),
    Setting(
        "model_path",
        ("MODEL_PATH",),
        Path,
        "a *.gguf file, or a folder with config.json and *.safetensors",
        "A local model in place of the profile's; llama-server serves a *.gguf. In Docker: /models/...",
        "model_path",
    ),
    Setting(
        "context",
        ("CONTEXT_SIZE", "N_CTX", "HERMES_CTX", "LLAMACPP_CTX_SIZE_OVERRIDE"),
        whole(16, 10_000_000),
        "a number of tokens, 16 or more",
        "Context in tokens, prompt and answer together. HERMES_CTX counts for hermes-* only.",
        "context_size",
        example="HERMES_CTX=6144",
    ),
    Setting(
        "load_in_8bit",
        ("LOAD_IN_8BIT",),
        truth,
        "1 or 0",
        "Quantise to 8 bits while loading (bitsandbytes, CUDA only).",
        "load_in_8bit",
        switch=True,
    ),
    Setting(
        "load_in_4bit",
        ("LOAD_IN_4BIT",),
        truth,
        "1 or 0",
        "Quantise to 4 bits while loading (bitsandbytes, CUDA only).",
        "load_in_4bit",
        switch=True,
    ),
    Setting(
        "device",
        ("DEVICE",),
        matching(DEVICE),
        "auto, cpu, cuda or cuda:N",
        "Where the model runs; auto takes a card when there is one.",
        "device",
    ),
    Setting(
        "threads",
        ("THREADS", "N_THREADS", "LLAMACPP_THREADS_OVERRIDE"),
        whole(1, 1024),
        "a number from 1 to 1024",
        "Threads of the model on a CPU. Not set: one fewer than the cores; llama-server's own choice.",
        "threads",
    ),
    Setting(
        "n_gpu_layers",
        ("N_GPU_LAYERS", "LLAMACPP_N_GPU_LAYERS_OVERRIDE"),
        whole(-1, 10_000),
        "a number of layers; -1, or more than there are, is all",
        "How many layers llama-server keeps on the card; all when nothing else is said.",
        "n_gpu_layers",
    ),
    Setting(
        "parallel",
        ("LLAMACPP_PARALLEL_OVERRIDE",),
        whole(1, 1024),
        "a number from 1 to 1024",
        "Requests at the same time, in place of the profile's.",
        "parallel",
    ),
    Setting(
        "batch_size",
        ("N_BATCH", "LLAMACPP_BATCH_SIZE_OVERRIDE"),
        whole(1, 1_000_000),
        "a number of tokens",
        "Tokens of prompts in one step, in place of the profile's.",
        "batch_size",
    ),
    Setting(
        "cuda_visible_devices",
        ("CUDA_VISIBLE_DEVICES_OVERRIDE",),
        matching(_CARDS),
        "indices in the order of the PCI bus, or UUIDs, separated by commas; -1 is no card",
        "The cards that the model may use, in place of the profile's `gpu.device_ids`.",
    ),
    Setting(
        "llama_server",
        ("LLAMA_SERVER_PATH",),
        str,
        "the path of a program",
        "The llama-server of GGUF profiles; the one on PATH when not set.",
        "llama_server",
    ),
    Setting(
        "cache_dir",
        ("LLM_CACHE_DIR",),
        Path,
        "the path of a folder",
        "What profiles and containers call /models; in its folder gguf GGUF files are looked for first.",
        "cache_dir",
    ),
    Setting(
        "autoload",
        ("AUTOLOAD",),
        truth,
        "1 or 0",
        "Load a model that is not loaded when a request names it; otherwise the request is answered 503.",
        "autoload",
        switch=True,
    ),
    Setting(
        "auto_quantize",
        ("AUTO_QUANTIZE",),
        truth,
        "1 or 0",
        "Quantise a 16-bit model once, at its first start, where the profile wants GPTQ; 0: stop instead.",
    ),
    Setting(
        "vram_budget_mib",
        ("VRAM_BUDGET",),
        size_mib,
        _SIZES,
        "The memory of the card that is never exceeded.",
        "vram_budget",
    ),
    Setting(
        "memory_budget_mib",
        ("MEMORY_BUDGET",),
        size_mib,
        _SIZES,
        "The main memory of the engine's process on a CPU (transformers); held from when it is loaded.",
        "memory_budget",
    ),
    Setting(
        "host",
        ("HOST",),
        matching(_ADDRESS),
        "an address or a host name",
        "The address to listen on; 0.0.0.0 is every one. Set API_KEY then.",
        "host",
    ),
    Setting(
        "port",
        ("PORT",),
        whole(0, 65535),
        "a number from 0 to 65535",
        "The port to listen on; 0 takes a free one.",
        "port",
    ),
    Setting(
        "api_key",
        ("API_KEY",),
        matching(r"[\x21-\x7e]{1,512}"),
        "1 to 512 printable characters without spaces",
        "Every route but the health ones asks for `Authorization: Bearer` with this key.",
    ),
    Setting(
        "allowed_hosts",
        ("ALLOWED_HOSTS",),
        hosts,
        "host names, separated by commas",
        "Names under which the service may be reached, and web pages that may use it.",
        "allowed_hosts",
    ),
    Setting(
        "publish_address",
        ("PUBLISH_ADDRESS",),
        matching(_ADDRESS),
        "an address or a host name",
        "The address under which people reach a container; HOST when not set.",
    ),
    Setting(
        "publish_port",
        ("PUBLISH_PORT",),
        whole(0, 65535),
        "a number from 0 to 65535",
        "The port under which people reach a container: Compose says it; PORT when not set.",
    ),
    Setting(
        "metrics_port",
        ("METRICS_PORT",),
        whole(1, 65535),
        "a number from 1 to 65535",
        "Serve /metrics on this port too, without a key (often 9091); in Docker for its network alone.",
        "metrics_port",
    ),
    Setting(
        "control_socket",
        ("CONTROL_SOCKET",),
        Path,
        "the path of a unix socket",
        "Where the watchdog asks for our own memory, phase and boot; none when not set.",
    ),
    Setting(
        "events_file",
        ("EVENTS_FILE",),
        Path,
        "the path of a file",
        "Where events are kept, 8 MiB of them at most; beside CONTROL_SOCKET when not set.",
        "events_file",
    ),
    Setting(
        "max_queue",
        ("MAX_QUEUE",),
        whole(0, 100_000),
        "a number from 0 to 100000",
        "How many requests may wait; the next one is answered 429.",
        "max_queue",
    ),
    Setting(
        "queue_timeout_s",
        ("QUEUE_TIMEOUT",),
        seconds(3600),
        "seconds, up to 3600",
        "How long a request may wait for its turn.",
        "queue_timeout",
    ),
    Setting(
        "queue_patience_s",
        ("QUEUE_PATIENCE",),
        seconds(3600),
        "seconds, up to 3600; 0 is strictly first come, first served",
        "How long smaller requests may pass one that waits for its memory.",
        "queue_patience",
    ),
    Setting(
        "drain_s",
        ("DRAIN_SECONDS",),
        seconds(3600),
        "a number of seconds, up to 3600",
        "How long running answers may go on after SIGTERM.",
        "drain_seconds",
    ),
    Setting(
        "log_format",
        ("LOG_FORMAT",),
        matching("plain|json"),
        "plain or json",
        "The form of the log's lines.",
        "log_format",
    ),
    Setting(
        "log_prompts",
        ("LOG_PROMPTS",),
        truth,
        "1 or 0",
        "Write prompts into the log; otherwise it never holds one.",
    ),
)
