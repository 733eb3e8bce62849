"""The panels of the dashboard, row by row: what each one asks Prometheus."""

from __future__ import annotations

from dataclasses import dataclass

HERE = 'instance=~"$instance"'
QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: `queries` are pairs of PromQL and what its line is called. `width` of 24 columns."""

    title: str
    text: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False
    names: tuple[str, ...] = ()


def quantiles(name: str) -> tuple[tuple[str, str], ...]:
    """Three lines of one histogram."""
    buckets = f"sum by (le) (rate({name}_bucket{{{HERE}}}[$__rate_interval]))"
    return tuple((f"histogram_quantile({q}, {buckets})", f"p{q * 100:g}") for q in QUANTILES)


def mean(name: str) -> str:
    """The mean of one histogram."""
    total, count = (f"sum(rate({name}_{part}{{{HERE}}}[$__rate_interval]))" for part in ("sum", "count"))
    return f"{total} / {count}"


ROWS: dict[str, tuple[Panel, ...]] = {
    "Budget and ladder": (
        Panel(
            "Ready",
            "Whether a generation would be taken now.",
            "none",
            ((f"llm_sidecar_ready{{{HERE}}}", "{{instance}}"),),
            kind="stat",
            width=4,
            names=("no", "yes"),
        ),
        Panel(
            "Phase",
            "Where it stands.",
            "none",
            ((f"llm_sidecar_phase{{{HERE}}} == 1", "{{instance}}: {{phase}}"),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Rung",
            "Which step of the ladder its own memory stands on.",
            "none",
            ((f"llm_sidecar_rung{{{HERE}}}", "{{instance}}"),),
            kind="stat",
            width=4,
            names=("steady", "warn", "nothing new is taken", "over the budget"),
        ),
        Panel(
            "Of the budget",
            "Own memory as a share of the budget; rungs begin at 96, 98 and 100 %.",
            "percentunit",
            (
                (
                    f'llm_sidecar_vram_used_bytes{{scope="own", {HERE}}} / ignoring (scope) '
                    f"llm_sidecar_vram_budget_bytes{{{HERE}}}",
                    "{{instance}}",
                ),
            ),
            kind="gauge",
            width=4,
        ),
        Panel(
            "KV memory reserved",
            "Share of the KV memory that requests hold.",
            "percentunit",
            ((f"vllm:kv_cache_usage_perc{{{HERE}}}", "{{instance}}"),),
        ),
        Panel(
            "Memory",
            "The sidecar's own, what was planned, what is allowed, and all that is in use on the card.",
            "bytes",
            (
                (f"llm_sidecar_vram_used_bytes{{{HERE}}}", "{{instance}} {{scope}}"),
                (f"llm_sidecar_plan_bytes{{{HERE}}}", "{{instance}} plan"),
                (f"llm_sidecar_vram_budget_bytes{{{HERE}}}", "{{instance}} budget"),
            ),
            width=12,
        ),
        Panel(
            "Events",
            "What happened to the memory and to the engine.",
            "none",
            ((f"increase(llm_sidecar_events_total{{{HERE}}}[$__rate_interval])", "{{kind}}"),),
            width=12,
        ),
    ),
    "Load and queue": (
        Panel(
            "Requests",
            "Running and waiting, against what there is room for.",
            "none",
            (
                (f"sum(vllm:num_requests_running{{{HERE}}})", "running"),
                (f"sum(vllm:num_requests_waiting{{{HERE}}})", "waiting"),
                (f"sum(llm_sidecar_slots{{{HERE}}})", "slots"),
            ),
        ),
        Panel(
            "Tokens a second",
            "Generated, and of prompts.",
            "none",
            (
                (f"sum(rate(vllm:generation_tokens_total{{{HERE}}}[$__rate_interval]))", "generated"),
                (f"sum(rate(vllm:prompt_tokens_total{{{HERE}}}[$__rate_interval]))", "prompts"),
            ),
        ),
        Panel(
            "Generations a second, by outcome",
            "`success`, `cancelled`, or the code of the error.",
            "reqps",
            (
                (
                    f"sum by (status) (rate(inference_requests_total{{{HERE}}}[$__rate_interval]))",
                    "{{status}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Refused a second, by code",
            "Generations that never had a turn.",
            "reqps",
            (
                (
                    f"sum by (code) (rate(llm_sidecar_admissions_refused_total{{{HERE}}}[$__rate_interval]))",
                    "{{code}}",
                ),
            ),
            stacked=True,
            width=6,
        ),
        Panel(
            "Prompts that were known",
            "Share of the prompts' tokens that need not be computed again.",
            "percentunit",
            (
                (
                    f"sum(rate(vllm:prefix_cache_hits_total{{{HERE}}}[$__rate_interval])) / "
                    f"sum(rate(vllm:prefix_cache_queries_total{{{HERE}}}[$__rate_interval]))",
                    "hits",
                ),
            ),
            width=6,
        ),
        Panel(
            "Length of a request",
            "Tokens of the prompt and of the answer, 95 of 100 are shorter.",
            "none",
            (
                (quantiles("vllm:request_prompt_tokens")[1][0], "prompt"),
                (quantiles("vllm:request_generation_tokens")[1][0], "answer"),
            ),
            width=6,
        ),
        Panel(
            "Answered elsewhere a second",
            "Attempts to have a hosted provider answer (FALLBACK).",
            "reqps",
            ((f"sum(rate(fallback_requests_total{{{HERE}}}[$__rate_interval])) or vector(0)", "attempts"),),
            width=6,
        ),
    ),
    "Latency": (
        Panel("First token", "From the arrival.", "s", quantiles("vllm:time_to_first_token_seconds")),
        Panel("Between tokens", "Of one choice.", "s", quantiles("vllm:inter_token_latency_seconds")),
        Panel("Whole answers", "From the arrival.", "s", quantiles("vllm:e2e_request_latency_seconds")),
        Panel("Waiting for a turn", "Priced, not begun.", "s", quantiles("vllm:request_queue_time_seconds")),
        Panel(
            "Where the time goes",
            "Means, one upon the other: waiting, the prompt, the answer.",
            "s",
            (
                (mean("vllm:request_queue_time_seconds"), "queue"),
                (mean("vllm:request_prefill_time_seconds"), "prompt"),
                (mean("vllm:request_decode_time_seconds"), "answer"),
            ),
            width=16,
            stacked=True,
        ),
    ),
    "Engine and restarts": (
        Panel(
            "Deaths of the engine",
            "In the last hour.",
            "none",
            ((f'sum(increase(llm_sidecar_events_total{{kind="engine_death", {HERE}}}[1h]))', "deaths"),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Up for",
            "Since the API process began.",
            "s",
            ((f'time() - process_start_time_seconds{{job="llm-sidecar", {HERE}}}', "{{instance}}"),),
            kind="stat",
            width=4,
        ),
        Panel(
            "The engine's last word",
            "It says something about once a second.",
            "s",
            ((f"llm_sidecar_engine_silent_seconds{{{HERE}}}", "{{instance}}"),),
        ),
        Panel(
            "The API process",
            "Its memory, without the engine's.",
            "bytes",
            ((f'process_resident_memory_bytes{{job="llm-sidecar", {HERE}}}', "{{instance}}"),),
        ),
        Panel(
            "Cards: memory in use",
            "Whoever uses it.",
            "bytes",
            ((f"gpu_memory_used_bytes{{{HERE}}}", "{{instance}} card {{gpu}}"),),
            width=12,
        ),
        Panel(
            "Cards: temperature",
            "As the driver tells it.",
            "celsius",
            ((f"gpu_temperature_celsius{{{HERE}}}", "{{instance}} card {{gpu}}"),),
            width=12,
        ),
    ),
    "Watchdog": (
        Panel(
            "Guarding",
            "What its own health check says.",
            "none",
            (("watchdog_healthy", "{{instance}}"),),
            kind="stat",
            width=4,
            names=("no", "yes"),
        ),
        Panel(
            "Restarts that may follow",
            "0 is: there are only alerts.",
            "none",
            (("watchdog_restart_budget_left", "{{instance}}"),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Restarts in 24 hours",
            "By reason.",
            "none",
            (("sum by (reason) (increase(watchdog_restarts_total[24h]))", "{{reason}}"),),
            kind="stat",
        ),
        Panel(
            "Alerts that stand",
            "Its /health says which.",
            "none",
            (("sum(watchdog_alert) or vector(0)", "alerts"),),
        ),
        Panel(
            "Its reading against the limit",
            "In MiB, as the driver tells it; `own` is the sidecar's part.",
            "mbytes",
            (
                ("watchdog_vram_used_mib", "{{gpu}} in use"),
                ("watchdog_vram_own_mib", "{{gpu}} own"),
                ("watchdog_vram_limit_mib", "limit"),
            ),
            width=12,
        ),
        Panel(
            "Strikes",
            "Readings over the limit in a row; three lead to a restart.",
            "none",
            (("watchdog_strikes", "{{gpu}}"),),
            width=6,
        ),
        Panel(
            "Blind",
            "Share of the time without a reading.",
            "percentunit",
            (("rate(watchdog_blind_seconds_total[$__rate_interval])", "{{instance}}"),),
            width=6,
        ),
    ),
}  # fmt: skip
