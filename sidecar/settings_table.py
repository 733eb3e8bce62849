"""The one table of what can be set: names, flag, what is accepted, what it does.

A row says how a text becomes a value; where the text comes from is `sidecar.settings`' business.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(GiB|GB|G|MiB|MB|M)", re.IGNORECASE)
_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,2})?")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


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


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or not low <= int(text) <= high:
            raise ValueError(text)
        return int(text)

    return parse


def _seconds(high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        number = text.removesuffix("s").strip()
        if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", number, re.ASCII) or float(number) > high:
            raise ValueError(text)
        return float(number)

    return parse


def _matching(pattern: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(text)
        return text

    return parse


def _truth(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError(text)


def size_mib(text: str) -> int:
    """`10.5GiB`, `10752MiB`; GB means GiB, as in `10.5 GB = 10752 MiB`. Never a bare number."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(text)
    mib = float(found[1]) * (1024 if found[2][0] in "gG" else 1)
    if not 1 <= mib <= 2**24:
        raise ValueError(text)
    return int(mib)


def _hosts(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not all(re.fullmatch(r"[A-Za-z0-9.:\[\]_-]{1,255}", name) for name in names):
        raise ValueError(text)
    return names


_HUB_ID = r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}(@[\w./-]{1,64})?"
_SIZES = "a size with its unit, such as 10.5GiB or 10752MiB"
_ADDRESS = r"[A-Za-z0-9.:_-]{1,255}"

TABLE: tuple[Setting, ...] = (
    Setting(
        "profile",
        ("LLM_PROFILE_NAME",),
        _matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"),
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
        _matching(_HUB_ID),
        "a hub id such as owner/name or owner/name@revision",
        "A model of the hub in place of the profile's sources.",
        "model_id",
    ),
    Setting(
        "model_path",
        ("MODEL_PATH",),
        Path,
        "a folder with config.json and *.safetensors",
        "A local model in place of the profile's sources.",
        "model_path",
    ),
    Setting(
        "context",
        ("CONTEXT_SIZE", "N_CTX", "HERMES_CTX", "LLAMACPP_CTX_SIZE_OVERRIDE"),
        _whole(16, 10_000_000),
        "a number of tokens, 16 or more",
        "Context in tokens, prompt and answer together. HERMES_CTX counts for hermes-* only.",
        "context_size",
        example="HERMES_CTX=6144",
    ),
    Setting(
        "load_in_8bit",
        ("LOAD_IN_8BIT",),
        _truth,
        "1 or 0",
        "Quantise to 8 bits while loading (bitsandbytes, CUDA only).",
        "load_in_8bit",
        switch=True,
    ),
    Setting(
        "load_in_4bit",
        ("LOAD_IN_4BIT",),
        _truth,
        "1 or 0",
        "Quantise to 4 bits while loading (bitsandbytes, CUDA only).",
        "load_in_4bit",
        switch=True,
    ),
    Setting(
        "device",
        ("DEVICE",),
        _matching(_DEVICE.pattern),
        "auto, cpu, cuda or cuda:N",
        "Where the model runs; auto takes a card when there is one.",
        "device",
    ),
    Setting(
        "threads",
        ("THREADS", "N_THREADS", "LLAMACPP_THREADS_OVERRIDE"),
        _whole(1, 1024),
        "a number from 1 to 1024",
        "Threads of the model on a CPU; one fewer than the cores when not set.",
        "threads",
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
        "The main memory that sizes weights and KV on a CPU; a plan, not a limit on the process.",
        "memory_budget",
    ),
    Setting(
        "host",
        ("HOST",),
        _matching(_ADDRESS),
        "an address or a host name",
        "The address to listen on; 0.0.0.0 is every one. Set API_KEY then.",
        "host",
    ),
    Setting(
        "port",
        ("PORT",),
        _whole(0, 65535),
        "a number from 0 to 65535",
        "The port to listen on; 0 takes a free one.",
        "port",
    ),
    Setting(
        "api_key",
        ("API_KEY",),
        _matching(r"[\x21-\x7e]{1,512}"),
        "1 to 512 printable characters without spaces",
        "Every route but the health ones asks for `Authorization: Bearer` with this key.",
    ),
    Setting(
        "allowed_hosts",
        ("ALLOWED_HOSTS",),
        _hosts,
        "host names, separated by commas",
        "Names under which the service may be reached, and web pages that may use it.",
        "allowed_hosts",
    ),
    Setting(
        "publish_address",
        ("PUBLISH_ADDRESS",),
        _matching(_ADDRESS),
        "an address or a host name",
        "The address under which people reach a container; HOST when not set.",
    ),
    Setting(
        "metrics_port",
        ("METRICS_PORT",),
        _whole(1, 65535),
        "a number from 1 to 65535",
        "Serve /metrics on this port too, without a key (often 9091).",
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
        "max_queue",
        ("MAX_QUEUE",),
        _whole(0, 100_000),
        "a number from 0 to 100000",
        "How many requests may wait; the next one is answered 429.",
        "max_queue",
    ),
    Setting(
        "queue_timeout_s",
        ("QUEUE_TIMEOUT",),
        _seconds(3600),
        "seconds, up to 3600",
        "How long a request may wait for its turn.",
        "queue_timeout",
    ),
    Setting(
        "drain_s",
        ("DRAIN_SECONDS",),
        _seconds(3600),
        "seconds, up to 3600",
        "How long running answers may go on after SIGTERM.",
        "drain_seconds",
    ),
    Setting(
        "log_format",
        ("LOG_FORMAT",),
        _matching("plain|json"),
        "plain or json",
        "The form of the log's lines.",
        "log_format",
    ),
    Setting(
        "log_prompts",
        ("LOG_PROMPTS",),
        _truth,
        "1 or 0",
        "Write prompts into the log; otherwise it never holds one.",
    ),
)
