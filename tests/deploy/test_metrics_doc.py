"""docs/metrics.md names what the code has, and the code has nothing that it does not name."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric as Family

from sidecar import metric_names
from sidecar.budget import Plan
from sidecar.generation import Usage
from sidecar.gpu import GpuReading, GpuWatch
from sidecar.ladder import Rung
from sidecar.metric_series import Snapshot
from sidecar.metrics import Metrics
from sidecar.own_memory import Memory, Own
from tests.watchdog.test_loop import World
from tests.watchdog.timeline import OVER
from tools.metrics_doc import DOCUMENT, GROUPS, with_tables
from watchdog.status import StatusServer

Told = dict[str, tuple[str, frozenset[str]]]
PLAN = Plan(100.0, 10.0, 1.0, 0.0, 1.0, pages=4, page_tokens=16, context=64)


def told(families: Iterable[Family]) -> Told:
    """Type and labels of each name, as Prometheus stores it."""
    found: Told = {}
    for family in families:
        name = family.name + "_total" * (family.type == "counter")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (family.type, frozenset(labels))
    return found


def everything() -> Told:
    """All that a sidecar says that knows everything, behind one answer and one refusal."""
    gpu = GpuWatch()
    gpu.latest = (GpuReading(0, "a card", "GPU-1", 1, 2, 61.0),)
    metrics = Metrics(CollectorRegistry(), gpu)
    memory = Memory(Own(1.0, "driver", 1.0), 2.0, Rung.STEADY, 1, 2, PLAN)
    metrics.watch(lambda: Snapshot("m", "ready", True, 1, 1, 1, memory, {}, 1, "cpu", 1.0))
    phases = metrics.arrived("m", 0.0)
    phases.priced, phases.turn = 0.0, 0.0
    for at in (1.0, 2.0):
        phases.heard(0, at)
    metrics.ended(phases, "success", 2.0, Usage(1, 2, 0))
    metrics.ended(metrics.arrived("m", 0.0), "queue_full", 1.0)
    metrics.fell_back("together", "success")
    return told(metrics.registry.collect())


def test_the_document_is_the_codes() -> None:
    assert DOCUMENT.read_text("utf-8") == with_tables(DOCUMENT.read_text("utf-8"))


def test_the_table_is_what_is_said() -> None:
    names = {metric.name: metric for group in GROUPS.values() for metric in group}
    assert everything() == {m.name: (m.kind, frozenset(m.labels)) for m in names.values()}


def test_buckets_are_the_tables() -> None:
    metrics = Metrics(CollectorRegistry())
    for family in metrics.registry.collect():
        if family.name == metric_names.DURATION.name:
            ends = [float(sample.labels["le"]) for sample in family.samples if "le" in sample.labels]
            assert ends == [*metric_names.DURATION.buckets, float("inf")]


def test_the_watchdogs_rows_are_what_it_says() -> None:
    world = World()
    world.play([OVER] * 20, 6)
    server = StatusServer("127.0.0.1", 0, world.tally, world.journal)
    try:
        said = told(server.registry.collect())
    finally:
        server.server_close()
    _, _, section = DOCUMENT.read_text("utf-8").partition("\n## The watchdog's")
    rows = re.findall(r"(?m)^\| `(\w+)` \| (\w+) \| ([^|]*) \|", section)
    named = {name: (kind, frozenset(re.findall(r"\w+", labels))) for name, kind, labels in rows}
    # Whose memory it is can not be told in that world, so the series of the own part has no labels there.
    labels = {name: found for name, (_, found) in said.items() if found}
    assert {name: kind for name, (kind, _) in named.items()} == {
        name: kind for name, (kind, _) in said.items()
    }
    assert {name: named[name][1] for name in labels} == labels


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="no markers"):
        with_tables("# Metrics")
