"""Names, and series that are absent rather than zero."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from sidecar import __version__, metric_names, vllm_names
from sidecar.budget import MIB
from sidecar.errors import NotLoaded
from sidecar.events import Kind
from sidecar.generation import Usage
from sidecar.gpu import GpuReading, GpuUnreadable, GpuWatch, look
from sidecar.ladder import Rung
from sidecar.metric_series import Snapshot
from sidecar.metrics import OUTCOMES, Metrics
from sidecar.own_memory import Memory, Own
from sidecar.phases import Phases, Stream
from sidecar.standing import PHASES
from tests.fakes import hung_nvml

CARD = GpuReading(0, "a card", "GPU-1", 5 * 1024**3, 8 * 1024**3, 61.0)
NOTHING_KNOWN = Memory(None, None, Rung.STEADY, None, None, None)
CLOSED: dict[str, set[str]] = {
    "model_name": {"m"},
    "engine": {"0"},
    "status": set(OUTCOMES),
    "code": set(OUTCOMES),
    "finished_reason": {"stop", "length", "abort"},
    "phase": set(PHASES),
    "kind": set(get_args(Kind)),
    "version": {__version__},
    "device": {""},
}


def now(memory: Memory = NOTHING_KNOWN, **more: Any) -> Snapshot:
    found = Snapshot("m", "ready", True, running=3, waiting=2, queue_limit=32, memory=memory)
    return replace(found, **more)


def counted(model: str = "m") -> tuple[Metrics, Phases]:
    """One generation that began at 10 s, is priced at 11, has its turn at 13 and its first token at 16."""
    metrics = Metrics(CollectorRegistry())
    phases = metrics.arrived(model, 10.0)
    phases.priced, phases.turn = 11.0, 13.0
    for at in (16.0, 16.04, 18.0):
        phases.heard(0, at)
    return metrics, phases


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def vllm(metrics: Metrics, name: str, **labels: str) -> float | None:
    return value(metrics, f"vllm:{name}", model_name="m", engine="0", **labels)


def test_the_five_names() -> None:
    gpu = GpuWatch()
    gpu.latest = (CARD,)
    metrics = Metrics(CollectorRegistry(), gpu)
    metrics.watch(now)
    metrics.ended(metrics.arrived("m", 0.0), "success", 1.5)
    text = metrics.text().decode()
    assert 'inference_requests_total{status="success"} 1.0' in text
    assert "inference_duration_seconds_count 1.0" in text
    assert "active_requests 3.0" in text
    assert 'gpu_memory_used_bytes{gpu="0"} 5.36870912e+09' in text
    assert 'gpu_temperature_celsius{gpu="0"} 61.0' in text


@pytest.mark.parametrize("latest", [GpuUnreadable("no driver"), ()])
def test_no_card_no_series(latest: GpuUnreadable | tuple[()]) -> None:
    gpu = GpuWatch()
    gpu.latest = latest
    assert "gpu_" not in Metrics(CollectorRegistry(), gpu).text().decode()


def test_where_the_time_of_a_generation_went() -> None:
    metrics, phases = counted()
    metrics.ended(phases, "success", 20.0, Usage(7, 3, cached_tokens=4))
    sums = {
        "time_to_first_token_seconds": 6.0,
        "request_queue_time_seconds": 2.0,
        "request_prefill_time_seconds": 3.0,
        "request_decode_time_seconds": 2.0,
        "request_inference_time_seconds": 5.0,
        "e2e_request_latency_seconds": 10.0,
        "request_time_per_output_token_seconds": 1.0,
        "inter_token_latency_seconds": 2.0,
        "time_per_output_token_seconds": 2.0,
        "request_prompt_tokens": 7.0,
        "request_generation_tokens": 3.0,
    }
    assert {name: vllm(metrics, f"{name}_sum") for name in sums} == pytest.approx(sums)
    assert vllm(metrics, "inter_token_latency_seconds_count") == 2
    assert vllm(metrics, "inter_token_latency_seconds_bucket", le="0.05") == 1
    assert vllm(metrics, "inter_token_latency_seconds_bucket", le="2.5") == 2
    assert vllm(metrics, "request_success_total", finished_reason="stop") == 1


@given(
    gaps=st.lists(st.floats(0, 200), max_size=30),
    bounds=st.lists(st.floats(0.001, 100), min_size=1, unique=True).map(sorted),
)
def test_gaps_are_counted_as_the_library_does(gaps: list[float], bounds: list[float]) -> None:
    registry = CollectorRegistry()
    theirs = Histogram("t", "t", buckets=bounds, registry=registry)
    phases, at = Phases("m", 0.0, Stream(bounds)), 0.0
    phases.heard(0, at)
    for gap in gaps:
        before, at = at, at + gap
        theirs.observe(at - before)
        phases.heard(0, at)
    ours = dict(phases.stream.buckets())
    assert all(registry.get_sample_value("t_bucket", {"le": end}) == count for end, count in ours.items())
    assert phases.stream.seconds == pytest.approx(sum(gaps))
    assert phases.stream.tokens == len(gaps) + 1


def test_choices_do_not_measure_each_other() -> None:
    phases = Phases("m", 0.0, Stream([1.0]))
    for choice, at in ((0, 1.0), (1, 1.5), (0, 3.0), (1, 3.5)):
        phases.heard(choice, at)
    assert phases.stream.counts == [0, 2]
    assert (phases.first_token_s, phases.decode_s, phases.per_token_s(6, 2)) == (1.0, 2.5, 1.25)


def test_tokens_count_while_they_come_and_end_as_the_engine_counts() -> None:
    metrics, phases = counted()
    assert vllm(metrics, "generation_tokens_total") == 3
    metrics.ended(phases, "success", 20.0, Usage(7, 5))
    assert vllm(metrics, "generation_tokens_total") == 5
    assert vllm(metrics, "prompt_tokens_total") == 7
    other = metrics.arrived("m", 30.0)
    other.heard(0, 31.0)
    metrics.ended(other, "success", 32.0, Usage(7, 0))  # a counter never falls
    assert vllm(metrics, "generation_tokens_total") == 6


def test_what_was_cut_is_counted_as_far_as_it_went() -> None:
    metrics, phases = counted()
    phases.prompt_tokens = 9
    metrics.ended(phases, "cancelled", 20.0)
    assert (vllm(metrics, "generation_tokens_total"), vllm(metrics, "prompt_tokens_total")) == (3, 9)
    assert vllm(metrics, "request_success_total", finished_reason="abort") == 1
    assert vllm(metrics, "e2e_request_latency_seconds_count") is None
    assert value(metrics, "llm_sidecar_admissions_refused_total", code="cancelled") is None


def test_an_engine_that_does_not_know_its_prefix_hits_has_no_series() -> None:
    metrics, phases = counted()
    metrics.ended(phases, "success", 20.0, Usage(7, 3, cached_tokens=None))
    assert "prefix_cache_hits_total{" not in metrics.text().decode()
    metrics.ended(phases, "success", 20.0, Usage(7, 3, cached_tokens=0))
    found = [vllm(metrics, f"prefix_cache_{what}_total") for what in ("queries", "hits")]
    assert found == [7, 0]


def test_whoever_never_had_a_turn_was_refused() -> None:
    metrics, begun = counted()
    metrics.ended(metrics.arrived("m", 0.0), "queue_full", 1.0)
    metrics.ended(begun, "engine_crashed", 20.0)
    with pytest.raises(NotLoaded), metrics.refusals():
        raise NotLoaded("no")
    codes = {"queue_full": 1, "model_not_loaded": 1, "engine_crashed": None}
    name = "llm_sidecar_admissions_refused_total"
    assert {code: value(metrics, name, code=code) for code in codes} == codes


def test_our_own_memory_and_its_budget() -> None:
    gpu = GpuWatch()
    gpu.latest = (CARD, CARD)
    metrics = Metrics(CollectorRegistry(), gpu)
    own = Own(1024.0, "driver", 1024.0)
    metrics.watch(lambda: now(Memory(own, 2048.0, Rung.WARN, 320, 4096, None)))
    assert value(metrics, "llm_sidecar_vram_used_bytes", scope="own") == 1024 * MIB
    assert value(metrics, "llm_sidecar_vram_used_bytes", scope="card") == 10240 * MIB
    assert value(metrics, "llm_sidecar_vram_budget_bytes") == 2048 * MIB
    assert value(metrics, "llm_sidecar_kv_tokens_reserved") == 320
    assert value(metrics, "llm_sidecar_kv_tokens_total") == 4096
    assert vllm(metrics, "kv_cache_usage_perc") == 320 / 4096
    assert value(metrics, "llm_sidecar_rung") == 1


def test_what_nobody_can_tell_is_absent() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.watch(lambda: now(phase="load", ready=False))
    text = metrics.text().decode()
    absent = ["vram", "plan", "kv_tokens", "slots", "engine_silent"]
    assert [name for name in absent if f"llm_sidecar_{name}" in text] == []
    assert "kv_cache_usage" not in text
    assert value(metrics, "llm_sidecar_ready") == 0
    assert value(metrics, "llm_sidecar_phase", phase="load") == 1
    assert value(metrics, "llm_sidecar_phase", phase="ready") == 0


@given(st.lists(st.text(), max_size=20), st.text(), st.lists(st.text(), max_size=5))
def test_no_label_is_what_somebody_made_up(outcomes: list[str], phase: str, kinds: list[str]) -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.watch(lambda: now(phase=phase, events=Counter(kinds)))
    for outcome in (*outcomes, "queue_full", "made up\n"):
        metrics.ended(metrics.arrived("m", 0.0), outcome, 1.0)
    for family in metrics.registry.collect():
        for sample in family.samples:
            for label, found in sample.labels.items():
                assert label == "le" or found in CLOSED[label]


def test_two_services_in_one_process() -> None:
    first, second = Metrics(CollectorRegistry()), Metrics(CollectorRegistry())
    first.ended(first.arrived("m", 0.0), "success", 1.0)
    assert 'status="success"' not in second.text().decode()


@pytest.mark.parametrize("metric", [*vllm_names.VLLM, *metric_names.SEED, *metric_names.OWN])
def test_a_name_says_its_type_and_its_unit(metric: metric_names.Metric) -> None:
    known = ("llm_sidecar_kv_tokens_total", "vllm:kv_cache_usage_perc")
    assert metric.name.endswith("_total") == (metric.kind == "counter") or metric.name in known
    assert metric.name.endswith("_seconds") == (metric.unit == "seconds")
    assert metric.name.endswith("_bytes") == (metric.unit == "bytes")
    assert (metric.kind == "histogram") == bool(metric.buckets)
    assert list(metric.buckets) == sorted(set(metric.buckets))


def test_looking_never_raises() -> None:
    assert isinstance(look(), tuple | GpuUnreadable)


def test_a_card_as_the_library_tells_it() -> None:
    assert look("tests.fakes.nvml") == (
        GpuReading(0, "Card", "GPU-0", 1024, 4096, 61.0, ((7, 512),)),
        GpuReading(1, "Card", "GPU-1", 1024, 4096, None),
    )


def test_a_library_that_is_missing_is_a_named_failure() -> None:
    found = look("no_such_library")
    assert isinstance(found, GpuUnreadable)
    assert "no_such_library" in found.reason


def test_a_driver_that_hangs_has_a_deadline_and_is_asked_by_one_thread_alone() -> None:
    def asking() -> int:
        return sum(thread.name == "gpu-look" for thread in threading.enumerate())

    hung_nvml.answers.clear()
    try:
        for _ in range(3):
            found = look("tests.fakes.hung_nvml", deadline_s=0.05)
            assert found == GpuUnreadable("the driver has not answered for 0.05 s")
            assert asking() == 1
    finally:
        hung_nvml.answers.set()
    assert look("tests.fakes.hung_nvml") == ()


def test_the_watch_keeps_the_last_look() -> None:
    async def story() -> None:
        watch = GpuWatch(interval_s=0.001)
        task = asyncio.create_task(watch.run())
        async with asyncio.timeout(5):
            while watch.latest == GpuUnreadable("not read yet"):
                await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(story())
