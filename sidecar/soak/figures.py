"""What a sidecar says of itself in /health and /metrics, whichever of it this release says. Pure.

The only place that knows where a figure stands; what is not said is None, never zero.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.budget import MIB

SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{([^}]*)\})? (\S+)", re.MULTILINE)
KV_RESERVED, KV_TOTAL = "llm_sidecar_kv_tokens_reserved", "llm_sidecar_kv_tokens_total"
BUDGET, USED = "llm_sidecar_vram_budget_bytes", "llm_sidecar_vram_used_bytes"


@dataclass(frozen=True, slots=True)
class Load:
    """How full it is at one moment."""

    running: int | None = None
    waiting: int | None = None
    kv_share: float | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """What it says of its sizes, in tokens and MiB."""

    context: int | None = None
    slots: int | None = None
    budget_mib: float | None = None
    plan_mib: float | None = None
    device: str | None = None


def load(metrics: Mapping[str, Any], text: str) -> Load:
    """From both forms of /metrics, JSON and text."""
    gauges = samples(text)
    reserved, total = gauges.get(KV_RESERVED), gauges.get(KV_TOTAL)
    return Load(
        running=_whole(metrics.get("requests_running")),
        waiting=_whole(metrics.get("requests_waiting")),
        kv_share=reserved / total if reserved is not None and total else None,
    )


def said(health: Mapping[str, Any], text: str) -> Said:
    """From /health and the text form of /metrics."""
    told = health.get("plan")
    plan: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
    budget_mib = _number(plan.get("budget_mib"))
    if budget_mib is None and BUDGET in (gauges := samples(text)):
        budget_mib = gauges[BUDGET] / MIB
    device = health.get("device")
    return Said(
        context=_whole(plan.get("context")),
        slots=_whole(plan.get("slots")),
        budget_mib=budget_mib,
        plan_mib=_number(plan.get("total_mib")),
        device=device if isinstance(device, str) else None,
    )


def used_mib(text: str) -> float | None:
    """What it holds of its memory by its own account, in MiB."""
    for name, labels, value in SAMPLE.findall(text):
        if name == USED and 'scope="own"' in labels:
            return float(value) / MIB
    return None


def samples(text: str) -> dict[str, float]:
    """The series without labels, by name."""
    return {name: float(value) for name, labels, value in SAMPLE.findall(text) if not labels}


def context_in(message: str) -> int | None:
    """The context that a refusal of `context_length_exceeded` names."""
    found = re.search(r"maximum context length is (\d+) tokens", message)
    return int(found[1]) if found else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
