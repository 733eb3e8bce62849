"""The names of every metric: the seed's five, our own, the library's of the process. Pure.

vLLM's are in `vllm_names`. `docs/metrics.md` is made from both (`python -m tools.metrics_doc`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One name as Prometheus stores it. `query` is an example of what it is asked for."""

    name: str
    kind: Kind
    unit: str
    text: str
    query: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_WHOLE_S = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)

# The five of the first hour: enough to see that it works.
REQUESTS = Metric(
    "inference_requests_total",
    "counter",
    "requests",
    "Generations that ended, by outcome: `success`, `cancelled`, or the code of the error.",
    "sum by (status) (rate(inference_requests_total[5m]))",
    ("status",),
)
DURATION = Metric(
    "inference_duration_seconds",
    "histogram",
    "seconds",
    "From the arrival of a request to the end of its answer, waiting included. Successful ones alone.",
    "histogram_quantile(0.95, sum by (le) (rate(inference_duration_seconds_bucket[5m])))",
    buckets=_WHOLE_S,
)
ACTIVE = Metric(
    "active_requests", "gauge", "requests", "Generations that hold a slot now.", "sum(active_requests)"
)
CARD_USED = Metric(
    "gpu_memory_used_bytes",
    "gauge",
    "bytes",
    "Memory in use on the card, whoever uses it.",
    "gpu_memory_used_bytes / 1024 ^ 2",
    ("gpu",),
)
CARD_WARM = Metric(
    "gpu_temperature_celsius",
    "gauge",
    "degrees Celsius",
    "Temperature of the card.",
    "max(gpu_temperature_celsius)",
    ("gpu",),
)

# What nobody else has: the budget, the ladder, the engine.
USED = Metric(
    "llm_sidecar_vram_used_bytes",
    "gauge",
    "bytes",
    "Memory in use: `own` is the sidecar's (resident memory without a card), `card` that of all cards here.",
    'llm_sidecar_vram_used_bytes{scope="own"} / ignoring (scope) llm_sidecar_vram_budget_bytes',
    ("scope",),
)
BUDGET = Metric(
    "llm_sidecar_vram_budget_bytes",
    "gauge",
    "bytes",
    "What the sidecar's own memory may be: VRAM_BUDGET, or MEMORY_BUDGET without a card.",
    "llm_sidecar_vram_budget_bytes / 1024 ^ 3",
)
PLANNED = Metric(
    "llm_sidecar_plan_bytes",
    "gauge",
    "bytes",
    "What the plan of the start adds up to.",
    "llm_sidecar_plan_bytes / llm_sidecar_vram_budget_bytes",
)
KV_RESERVED = Metric(
    "llm_sidecar_kv_tokens_reserved",
    "gauge",
    "tokens",
    "KV memory that requests have reserved.",
    "llm_sidecar_kv_tokens_reserved / llm_sidecar_kv_tokens_total",
)
KV_TOTAL = Metric(
    "llm_sidecar_kv_tokens_total", "gauge", "tokens", "KV memory in all.", "llm_sidecar_kv_tokens_total"
)
RUNG = Metric(
    "llm_sidecar_rung",
    "gauge",
    "0 to 3",
    "The rung that is stood on: 0 steady, 1 warn, 2 stop admitting, 3 over the budget.",
    "max_over_time(llm_sidecar_rung[1h])",
)
EVENTS = Metric(
    "llm_sidecar_events_total",
    "counter",
    "events",
    "What happened to the memory and to the engine, as in `/events`; `engine_death` is one to be replaced.",
    'increase(llm_sidecar_events_total{kind="engine_death"}[1h])',
    ("kind",),
)
READY = Metric(
    "llm_sidecar_ready",
    "gauge",
    "0 or 1",
    "1 when a generation would be taken now.",
    "llm_sidecar_ready == 0",
)
PHASE = Metric(
    "llm_sidecar_phase",
    "gauge",
    "0 or 1",
    "1 for the phase that it is in, 0 for all others.",
    "llm_sidecar_phase == 1",
    ("phase",),
)
SLOTS = Metric(
    "llm_sidecar_slots",
    "gauge",
    "requests",
    "Generations that may run at once.",
    "active_requests / llm_sidecar_slots",
)
QUEUE_LIMIT = Metric(
    "llm_sidecar_queue_limit",
    "gauge",
    "requests",
    "Requests that may wait (MAX_QUEUE).",
    "sum without (model_name, engine) (vllm:num_requests_waiting) / llm_sidecar_queue_limit",
)
REFUSED = Metric(
    "llm_sidecar_admissions_refused_total",
    "counter",
    "requests",
    "Generations that never had a turn, by the code of the error.",
    "sum by (code) (rate(llm_sidecar_admissions_refused_total[5m]))",
    ("code",),
)
FALLBACK = Metric(
    "fallback_requests_total",
    "counter",
    "requests",
    "Attempts to have a hosted provider answer in the engine's place; `capped` ones were not made.",
    "sum by (provider, outcome) (rate(fallback_requests_total[5m]))",
    ("provider", "outcome"),
)
SILENT = Metric(
    "llm_sidecar_engine_silent_seconds",
    "gauge",
    "seconds",
    "Since the engine last said anything; it does about once a second.",
    "llm_sidecar_engine_silent_seconds > 10",
)
INFO = Metric(
    "llm_sidecar_info",
    "gauge",
    "always 1",
    "The version, and the device that the model is on (empty without one).",
    "count by (version, device) (llm_sidecar_info)",
    ("version", "device"),
)

# The library's own, of the API process.
PROCESS = (
    Metric(
        "process_resident_memory_bytes",
        "gauge",
        "bytes",
        "Memory of the API process, without the engine's.",
        "process_resident_memory_bytes / 1024 ^ 2",
    ),
    Metric(
        "process_virtual_memory_bytes", "gauge", "bytes", "Its address space.", "process_virtual_memory_bytes"
    ),
    Metric(
        "process_cpu_seconds_total",
        "counter",
        "seconds",
        "Its processor time.",
        "rate(process_cpu_seconds_total[5m])",
    ),
    Metric(
        "process_start_time_seconds",
        "gauge",
        "seconds since 1970",
        "When it started.",
        "time() - process_start_time_seconds",
    ),
    Metric(
        "process_open_fds",
        "gauge",
        "files",
        "Files and connections that it has open.",
        "process_open_fds / process_max_fds",
    ),
    Metric("process_max_fds", "gauge", "files", "As many as it may have.", "process_max_fds"),
)

SEED = (REQUESTS, DURATION, ACTIVE, CARD_USED, CARD_WARM)
OWN = (
    USED, BUDGET, PLANNED, KV_RESERVED, KV_TOTAL, RUNG, EVENTS, READY, PHASE, SLOTS, QUEUE_LIMIT, REFUSED,
    FALLBACK, SILENT, INFO,
)  # fmt: skip
