"""Names, and series that are absent rather than zero."""

from __future__ import annotations

import asyncio
import threading

import pytest
from prometheus_client import CollectorRegistry

from sidecar.gpu import GpuReading, GpuUnreadable, GpuWatch, look
from sidecar.ladder import Rung
from sidecar.metrics import Metrics
from sidecar.own_memory import Memory, Own
from tests.fakes import hung_nvml

CARD = GpuReading(0, "a card", "GPU-1", 5 * 1024**3, 8 * 1024**3, 61.0)


def test_the_five_names() -> None:
    gpu = GpuWatch()
    gpu.latest = (CARD,)
    metrics = Metrics(CollectorRegistry(), gpu)
    metrics.watch_running(lambda: 3)
    metrics.answered("success", 1.5)
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


def test_our_own_memory_and_its_budget() -> None:
    gpu = GpuWatch()
    gpu.latest = (CARD, CARD)
    metrics = Metrics(CollectorRegistry(), gpu)
    own = Own(1024.0, "driver", 1024.0)
    metrics.watch_memory(lambda: Memory(own, 2048.0, Rung.STEADY, 320, 4096, None))
    text = metrics.text().decode()
    assert 'llm_sidecar_vram_used_bytes{scope="own"} 1.073741824e+09' in text
    assert 'llm_sidecar_vram_used_bytes{scope="card"} 1.073741824e+10' in text
    assert "llm_sidecar_vram_budget_bytes 2.147483648e+09" in text
    assert "llm_sidecar_kv_tokens_reserved 320.0" in text
    assert "llm_sidecar_kv_tokens_total 4096.0" in text


def test_what_nobody_can_tell_is_absent() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.watch_memory(lambda: Memory(None, None, Rung.STEADY, None, None, None))
    assert "llm_sidecar" not in metrics.text().decode()


def test_outcomes_are_a_closed_list() -> None:
    metrics = Metrics(CollectorRegistry())
    for outcome in ("queue_full", "made up\n", "cancelled"):
        metrics.answered(outcome, 0.0)
    text = metrics.text().decode()
    assert 'status="queue_full"' in text
    assert 'status="internal_error"' in text
    assert "made up" not in text


def test_two_services_in_one_process() -> None:
    first, second = Metrics(CollectorRegistry()), Metrics(CollectorRegistry())
    first.answered("success", 1.0)
    assert 'status="success"' not in second.text().decode()


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
