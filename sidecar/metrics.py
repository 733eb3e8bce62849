"""What is counted, and the text of a scrape. The names are in `metric_names` and `vllm_names`.

The registry is injected, so that two services in one process never meet. No label ever holds what a client
wrote: outcomes, codes, kinds and phases are closed lists, and a model's name is that of a profile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from sidecar import metric_names, vllm_names
from sidecar.errors import SidecarError, tree
from sidecar.fallback import Outcome
from sidecar.generation import Usage
from sidecar.gpu import GpuReading, GpuWatch
from sidecar.metric_names import Metric
from sidecar.metric_series import ENGINE, Cards, Looks, Snapshot, Streams
from sidecar.phases import Phases, Stream

OUTCOMES = frozenset({"success", "cancelled", *tree()})
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# A second series for each counter and histogram, with the time of its making, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types there


class Metrics:
    """See the module. `gpu` is looked at, never asked, when somebody scrapes."""

    def __init__(self, registry: CollectorRegistry, gpu: GpuWatch | None = None) -> None:
        self.registry = registry
        self.gpu = gpu or GpuWatch()
        self._streams: dict[str, Stream] = {}
        self._requests = _made(Counter, metric_names.REQUESTS, registry)
        self._seconds = _made(Histogram, metric_names.DURATION, registry)
        self._refused = _made(Counter, metric_names.REFUSED, registry)
        self._fallback = _made(Counter, metric_names.FALLBACK, registry)
        self._ended = {metric.name: _made(_KINDS[metric.kind], metric, registry) for metric in _AT_THE_END}
        registry.register(Cards(self.gpu))
        registry.register(Streams(self._streams))
        ProcessCollector(registry=registry)

    def watch(self, look: Callable[[], Snapshot]) -> None:
        """How the service is looked at when somebody scrapes."""
        self.registry.register(Looks(look, self.gpu))

    def arrived(self, model: str, now: float) -> Phases:
        """A generation for the model of that name begins; `now` is of the loop's clock."""
        stream = self._streams.get(model)
        if stream is None:
            stream = self._streams[model] = Stream(vllm_names.BETWEEN.buckets)
        return Phases(model, now, stream)

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Counts what is refused inside the block, before it could have a turn."""
        try:
            yield
        except SidecarError as error:
            self._refused.labels(_known(error.code)).inc()
            raise

    def ended(
        self, phases: Phases, outcome: str, now: float, usage: Usage | None = None, choices: int = 1
    ) -> None:
        """It ended: `success`, `cancelled`, or the code of its error."""
        self._requests.labels(_known(outcome)).inc()
        if phases.turn is None and outcome not in ("success", "cancelled"):
            self._refused.labels(_known(outcome)).inc()
        if outcome == "success":
            self._seconds.observe(now - phases.arrived)
            self._observe(phases, vllm_names.WHOLE, now - phases.arrived)
        self._tokens(phases, usage, choices)
        self._timed(phases)
        if (reason := _reason(phases, outcome)) is not None:
            self._child(phases, vllm_names.SUCCESS, reason).inc()

    def fell_back(self, provider: str, outcome: Outcome) -> None:
        """One attempt to have that provider answer ended, or was not made (`capped`)."""
        self._fallback.labels(provider, outcome).inc()

    def text(self) -> bytes:
        """The Prometheus text form."""
        return generate_latest(self.registry)

    def cards(self) -> tuple[GpuReading, ...]:
        """The cards as last read; empty without one."""
        return self.gpu.cards()

    def _timed(self, phases: Phases) -> None:
        self._observe(phases, vllm_names.FIRST, phases.first_token_s)
        self._observe(phases, vllm_names.QUEUED, phases.queue_s)
        self._observe(phases, vllm_names.PREFILL, phases.prefill_s)
        self._observe(phases, vllm_names.DECODE, phases.decode_s)
        self._observe(phases, vllm_names.INFERENCE, phases.inference_s)

    def _tokens(self, phases: Phases, usage: Usage | None, choices: int) -> None:
        """What the engine counted where it said so, else what was heard."""
        known = usage or Usage(phases.prompt_tokens, phases.tokens)
        self._child(phases, vllm_names.PROMPT_TOKENS).inc(known.prompt_tokens)
        # A counter never falls: what was heard stands where the engine counts less.
        phases.stream.tokens += max(0, known.completion_tokens - phases.tokens)
        if usage is None:
            return
        self._observe(phases, vllm_names.PROMPT_LENGTH, usage.prompt_tokens)
        self._observe(phases, vllm_names.ANSWER_LENGTH, usage.completion_tokens)
        per_token_s = phases.per_token_s(usage.completion_tokens, choices)
        self._observe(phases, vllm_names.MEAN_PER_TOKEN, per_token_s)
        if usage.cached_tokens is not None:
            self._child(phases, vllm_names.PREFIX_QUERIES).inc(usage.prompt_tokens)
            self._child(phases, vllm_names.PREFIX_HITS).inc(usage.cached_tokens)

    def _observe(self, phases: Phases, metric: Metric, value: float | None) -> None:
        if value is not None:
            self._child(phases, metric).observe(value)

    def _child(self, phases: Phases, metric: Metric, *more: str) -> Any:
        return self._ended[metric.name].labels(phases.model, ENGINE, *more)


_KINDS: dict[str, type[Counter] | type[Histogram]] = {"counter": Counter, "histogram": Histogram}
_AT_THE_TOKEN = {vllm_names.GENERATION_TOKENS, vllm_names.BETWEEN, vllm_names.PER_TOKEN}
_AT_THE_END = [metric for metric in vllm_names.VLLM if metric.kind in _KINDS and metric not in _AT_THE_TOKEN]


def _made(kind: Any, metric: Metric, registry: CollectorRegistry) -> Any:
    more = {"buckets": metric.buckets} if metric.buckets else {}
    return kind(metric.name, metric.text, metric.labels, registry=registry, **more)


def _known(code: str) -> str:
    return code if code in OUTCOMES else "internal_error"


def _reason(phases: Phases, outcome: str) -> str | None:
    """vLLM's word for how it ended; errors have none."""
    if outcome == "success":
        return "length" if phases.cut_by_length else "stop"
    return "abort" if outcome == "cancelled" else None
