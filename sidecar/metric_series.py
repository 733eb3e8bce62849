"""The series that are looked at when somebody scrapes: absent, never zero, while nobody can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from sidecar import __version__, metric_names, vllm_names
from sidecar.budget import MIB
from sidecar.events import Kind
from sidecar.gpu import GpuWatch
from sidecar.metric_names import Metric
from sidecar.own_memory import Memory
from sidecar.phases import Stream
from sidecar.standing import PHASES

ENGINE = "0"
Values = Mapping[tuple[str, ...], float | None]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one look at the service finds; None is not known. `model` is the one that is held."""

    model: str
    phase: str
    ready: bool
    running: int
    waiting: int
    queue_limit: int
    memory: Memory
    events: Mapping[str, int] = field(default_factory=dict)
    slots: int | None = None
    device: str | None = None
    silent_s: float | None = None


class Cards(Collector):
    """The two series of the cards."""

    def __init__(self, gpu: GpuWatch) -> None:
        self._gpu = gpu

    def collect(self) -> Iterator[Family]:
        """From the last reading of the driver."""
        cards = self._gpu.cards()
        used: Values = {(str(card.index),): card.memory_used_bytes for card in cards}
        warm: Values = {(str(c.index),): c.temperature_celsius for c in cards if c.temperature_celsius}
        yield from _gauges(metric_names.CARD_USED, used)
        yield from _gauges(metric_names.CARD_WARM, warm)


class Streams(Collector):
    """What is counted at every token, under vLLM's names."""

    def __init__(self, streams: Mapping[str, Stream]) -> None:
        self._streams = streams

    def collect(self) -> Iterator[Family]:
        """One series for each model that was served."""
        streams = {(model, ENGINE): stream for model, stream in list(self._streams.items())}
        tokens: dict[tuple[str, ...], float] = {labels: stream.tokens for labels, stream in streams.items()}
        yield _counters(vllm_names.GENERATION_TOKENS, tokens)
        for metric in (vllm_names.BETWEEN, vllm_names.PER_TOKEN):
            family = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
            for labels, stream in streams.items():
                family.add_metric(labels, stream.buckets(), stream.seconds)
            yield family


class Looks(Collector):
    """All that follows from one look at the service."""

    def __init__(self, look: Callable[[], Snapshot], gpu: GpuWatch) -> None:
        self._look = look
        self._gpu = gpu

    def collect(self) -> Iterator[Family]:
        """One look for all of it."""
        now = self._look()
        yield from _load(now)
        yield from _memory(now.memory)
        yield from _gauges(metric_names.USED, _used(now.memory, self._gpu))
        yield from _engine(now)


def _load(now: Snapshot) -> Iterator[Family]:
    memory, labels = now.memory, (now.model, ENGINE)
    yield from _gauges(metric_names.ACTIVE, {(): now.running})
    yield from _gauges(vllm_names.RUNNING, {labels: now.running})
    yield from _gauges(vllm_names.WAITING, {labels: now.waiting})
    yield from _gauges(metric_names.SLOTS, {(): now.slots})
    yield from _gauges(metric_names.QUEUE_LIMIT, {(): now.queue_limit})
    if memory.kv_total and memory.kv_reserved is not None:
        yield from _gauges(vllm_names.KV_SHARE, {labels: memory.kv_reserved / memory.kv_total})


def _memory(memory: Memory) -> Iterator[Family]:
    plan_mib = None if memory.plan is None else memory.plan.total_mib
    yield from _gauges(metric_names.BUDGET, {(): _bytes(memory.budget_mib)})
    yield from _gauges(metric_names.PLANNED, {(): _bytes(plan_mib)})
    yield from _gauges(metric_names.KV_RESERVED, {(): memory.kv_reserved})
    yield from _gauges(metric_names.KV_TOTAL, {(): memory.kv_total})
    yield from _gauges(metric_names.RUNG, {(): memory.rung})


def _used(memory: Memory, gpu: GpuWatch) -> Values:
    cards = gpu.cards()
    return {
        ("own",): None if memory.own is None else _bytes(memory.own.mib),
        ("card",): float(sum(card.memory_used_bytes for card in cards)) if cards else None,
    }


def _engine(now: Snapshot) -> Iterator[Family]:
    yield from _gauges(metric_names.READY, {(): now.ready})
    yield from _gauges(metric_names.PHASE, {(name,): name == now.phase for name in PHASES})
    yield from _gauges(metric_names.SILENT, {(): now.silent_s})
    yield from _gauges(metric_names.INFO, {(__version__, now.device or ""): 1})
    counted: dict[tuple[str, ...], float] = {(kind,): now.events.get(kind, 0) for kind in get_args(Kind)}
    yield _counters(metric_names.EVENTS, counted)


def _gauges(metric: Metric, values: Values) -> Iterator[Family]:
    known = {labels: value for labels, value in values.items() if value is not None}
    if known:
        family = GaugeMetricFamily(metric.name, metric.text, labels=metric.labels)
        for labels, value in known.items():
            family.add_metric(labels, value)
        yield family


def _counters(metric: Metric, values: Mapping[tuple[str, ...], float]) -> Family:
    family = CounterMetricFamily(metric.name.removesuffix("_total"), metric.text, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _bytes(mib: float | None) -> float | None:
    return None if mib is None else mib * MIB
