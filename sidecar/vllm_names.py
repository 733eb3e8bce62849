"""The metrics that have vLLM's names, labels and buckets (those of its release 0.32). Pure.

Dashboards and autoscalers that were made for vLLM read this program by them. `engine` is always 0: one
sidecar has one engine.
"""

from __future__ import annotations

from sidecar.metric_names import Metric

_MODEL = ("model_name", "engine")
_REQUEST_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
)  # fmt: skip
_FIRST_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
_TOKEN_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
# vLLM's end at the model's context; these are fixed, so that a model that is exchanged changes no series.
_TOKENS = tuple(float(step * 10**power) for power in range(6) for step in (1, 2, 5))[:-1]

RUNNING = Metric(
    "vllm:num_requests_running",
    "gauge",
    "requests",
    "Generations that hold a slot now.",
    "sum(vllm:num_requests_running)",
    _MODEL,
)
WAITING = Metric(
    "vllm:num_requests_waiting",
    "gauge",
    "requests",
    "Requests in the queue now, those that are being priced included.",
    "avg_over_time(sum(vllm:num_requests_waiting)[5m:])",
    _MODEL,
)
KV_SHARE = Metric(
    "vllm:kv_cache_usage_perc",
    "gauge",
    "share, 0 to 1",
    "Share of the KV memory that requests have reserved.",
    "max(vllm:kv_cache_usage_perc)",
    _MODEL,
)
PREFIX_QUERIES = Metric(
    "vllm:prefix_cache_queries_total",
    "counter",
    "tokens",
    "Tokens of prompts that were looked for among what had been computed before.",
    "rate(vllm:prefix_cache_hits_total[5m]) / rate(vllm:prefix_cache_queries_total[5m])",
    _MODEL,
)
PREFIX_HITS = Metric(
    "vllm:prefix_cache_hits_total",
    "counter",
    "tokens",
    "Those of them that were found, and not computed again.",
    "rate(vllm:prefix_cache_hits_total[5m])",
    _MODEL,
)
PROMPT_TOKENS = Metric(
    "vllm:prompt_tokens_total",
    "counter",
    "tokens",
    "Tokens of the prompts of generations that ended.",
    "sum(rate(vllm:prompt_tokens_total[5m]))",
    _MODEL,
)
GENERATION_TOKENS = Metric(
    "vllm:generation_tokens_total",
    "counter",
    "tokens",
    "Tokens that were generated. It moves with every piece of text; at the end of an answer the engine's own "
    "count is what it comes to.",
    "sum(rate(vllm:generation_tokens_total[1m]))",
    _MODEL,
)
SUCCESS = Metric(
    "vllm:request_success_total",
    "counter",
    "requests",
    "Generations by how they ended: `stop`, `length`, or `abort` where the client left.",
    "sum by (finished_reason) (rate(vllm:request_success_total[5m]))",
    (*_MODEL, "finished_reason"),
)
FIRST = Metric(
    "vllm:time_to_first_token_seconds",
    "histogram",
    "seconds",
    "From the arrival of a request to its first token, waiting included.",
    "histogram_quantile(0.95, sum by (le) (rate(vllm:time_to_first_token_seconds_bucket[5m])))",
    _MODEL,
    _FIRST_S,
)
BETWEEN = Metric(
    "vllm:inter_token_latency_seconds",
    "histogram",
    "seconds",
    "Between a token of a choice and the next one; one observation for each token.",
    "histogram_quantile(0.99, sum by (le) (rate(vllm:inter_token_latency_seconds_bucket[5m])))",
    _MODEL,
    _TOKEN_S,
)
PER_TOKEN = Metric(
    "vllm:time_per_output_token_seconds",
    "histogram",
    "seconds",
    "The same under vLLM's older name.",
    "rate(vllm:time_per_output_token_seconds_sum[5m]) / rate(vllm:time_per_output_token_seconds_count[5m])",
    _MODEL,
    _TOKEN_S,
)
MEAN_PER_TOKEN = Metric(
    "vllm:request_time_per_output_token_seconds",
    "histogram",
    "seconds",
    "The mean time for a token behind the first one; one observation for each request.",
    "histogram_quantile(0.5, sum by (le) (rate(vllm:request_time_per_output_token_seconds_bucket[5m])))",
    _MODEL,
    _TOKEN_S,
)
WHOLE = Metric(
    "vllm:e2e_request_latency_seconds",
    "histogram",
    "seconds",
    "From the arrival of a request to the end of its answer. Successful ones alone.",
    "histogram_quantile(0.95, sum by (le) (rate(vllm:e2e_request_latency_seconds_bucket[5m])))",
    _MODEL,
    _REQUEST_S,
)
QUEUED = Metric(
    "vllm:request_queue_time_seconds",
    "histogram",
    "seconds",
    "From a request's price to its turn.",
    "histogram_quantile(0.95, sum by (le) (rate(vllm:request_queue_time_seconds_bucket[5m])))",
    _MODEL,
    _REQUEST_S,
)
PREFILL = Metric(
    "vllm:request_prefill_time_seconds",
    "histogram",
    "seconds",
    "From a request's turn to its first token.",
    "rate(vllm:request_prefill_time_seconds_sum[5m]) / rate(vllm:request_prefill_time_seconds_count[5m])",
    _MODEL,
    _REQUEST_S,
)
DECODE = Metric(
    "vllm:request_decode_time_seconds",
    "histogram",
    "seconds",
    "From a request's first token to its last.",
    "rate(vllm:request_decode_time_seconds_sum[5m]) / rate(vllm:request_decode_time_seconds_count[5m])",
    _MODEL,
    _REQUEST_S,
)
INFERENCE = Metric(
    "vllm:request_inference_time_seconds",
    "histogram",
    "seconds",
    "From a request's turn to its last token.",
    "sum(rate(vllm:request_inference_time_seconds_sum[5m]))",
    _MODEL,
    _REQUEST_S,
)
PROMPT_LENGTH = Metric(
    "vllm:request_prompt_tokens",
    "histogram",
    "tokens",
    "Tokens of the prompt of one request.",
    "histogram_quantile(0.9, sum by (le) (rate(vllm:request_prompt_tokens_bucket[1h])))",
    _MODEL,
    _TOKENS,
)
ANSWER_LENGTH = Metric(
    "vllm:request_generation_tokens",
    "histogram",
    "tokens",
    "Tokens of the answer of one request, of all its choices.",
    "histogram_quantile(0.9, sum by (le) (rate(vllm:request_generation_tokens_bucket[1h])))",
    _MODEL,
    _TOKENS,
)

VLLM = (
    RUNNING, WAITING, KV_SHARE, PREFIX_QUERIES, PREFIX_HITS, PROMPT_TOKENS, GENERATION_TOKENS, SUCCESS,
    FIRST, BETWEEN, PER_TOKEN, MEAN_PER_TOKEN, WHOLE, QUEUED, PREFILL, DECODE, INFERENCE, PROMPT_LENGTH,
    ANSWER_LENGTH,
)  # fmt: skip
