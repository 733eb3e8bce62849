"""The only metric names of this program.

The registry is injected, so that two services in one process never meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sidecar.budget import MIB
from sidecar.errors import tree
from sidecar.fallback import Outcome
from sidecar.gpu import GpuReading, GpuWatch
from sidecar.own_memory import Memory

OUTCOMES = frozenset({"success", "cancelled", *tree()})
DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counts what was answered. `gpu` is looked at, never asked, when somebody scrapes."""

    def __init__(self, registry: CollectorRegistry, gpu: GpuWatch | None = None) -> None:
        self.registry = registry
        self.gpu = gpu or GpuWatch()
        self._requests = Counter(
            "inference_requests_total",
            "Generations by outcome.",
            ["status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "inference_duration_seconds",
            "Seconds from arrival to the end of the answer, waiting included.",
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self._fallback = Counter(
            "fallback_requests_total",
            "Attempts to have a hosted provider answer in the engine's place.",
            ["provider", "outcome"],
            registry=registry,
        )
        self._active = Gauge("active_requests", "Generations that run now.", registry=registry)
        registry.register(_Cards(self.gpu))

    def watch_running(self, running: Callable[[], int]) -> None:
        """Where `active_requests` is read from."""
        self._active.set_function(lambda: float(running()))

    def watch_memory(self, memory: Callable[[], Memory]) -> None:
        """Where the series of our own memory are read from."""
        self.registry.register(_Memory(memory, self.gpu))

    def answered(self, outcome: str, seconds: float) -> None:
        """One generation ended: `success`, `cancelled`, or the code of its error."""
        self._requests.labels(outcome if outcome in OUTCOMES else "internal_error").inc()
        if outcome == "success":
            self._seconds.observe(seconds)

    def fell_back(self, provider: str, outcome: Outcome) -> None:
        """One attempt to have that provider answer ended, or was not made (`capped`)."""
        self._fallback.labels(provider, outcome).inc()

    def text(self) -> bytes:
        """The Prometheus text form."""
        return generate_latest(self.registry)

    def cards(self) -> tuple[GpuReading, ...]:
        """The cards as last read; empty without one."""
        return self.gpu.cards()


class _Cards(Collector):
    """The two series of the cards; absent, never zero, while there is no reading."""

    def __init__(self, gpu: GpuWatch) -> None:
        self._gpu = gpu

    def collect(self) -> Iterator[Metric]:
        cards = self._gpu.cards()
        if cards:
            yield _family(
                "gpu_memory_used_bytes",
                "Memory in use on the card.",
                {str(card.index): float(card.memory_used_bytes) for card in cards},
            )
        warm = {str(c.index): c.temperature_celsius for c in cards if c.temperature_celsius}
        if warm:
            yield _family("gpu_temperature_celsius", "Temperature of the card.", warm)


class _Memory(Collector):
    """Our own memory against its budget; a series is absent, never zero, while nobody can tell."""

    def __init__(self, memory: Callable[[], Memory], gpu: GpuWatch) -> None:
        self._memory = memory
        self._gpu = gpu

    def collect(self) -> Iterator[Metric]:
        now = self._memory()
        used = {} if now.own is None else {"own": now.own.mib * MIB}
        if cards := self._gpu.cards():
            used["card"] = float(sum(card.memory_used_bytes for card in cards))
        if used:
            yield _family(
                "llm_sidecar_vram_used_bytes",
                "Memory in use: our own (resident memory without a card), and of all cards here.",
                used,
                "scope",
            )
        if now.budget_mib is not None:
            yield _value(
                "llm_sidecar_vram_budget_bytes",
                "What our own memory may be: VRAM_BUDGET, or MEMORY_BUDGET without a card.",
                now.budget_mib * MIB,
            )
        if now.kv_total is not None and now.kv_reserved is not None:
            text = "Tokens of KV memory that requests have reserved."
            yield _value("llm_sidecar_kv_tokens_reserved", text, now.kv_reserved)
            yield _value("llm_sidecar_kv_tokens_total", "Tokens of KV memory in all.", now.kv_total)


def _value(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _family(name: str, text: str, values: dict[str, float], label: str = "gpu") -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for which, value in values.items():
        family.add_metric([which], value)
    return family
