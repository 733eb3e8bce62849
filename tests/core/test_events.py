"""The ring and its file: bounded, whole after a crash, and free of requests."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.events import TAIL_BYTES, Events, read

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def events(path: Path | None = None, **more: int) -> Events:
    return Events(path, wall=lambda: NOON, **more)


def test_an_event_and_the_memory_as_it_stands() -> None:
    kept = events()
    kept.reading = lambda: {"own_mib": 10420.0, "budget_mib": None}
    event = kept.record("trim", "given back", by="watchdog", before_mib=10540.0, freed_mib=120.0)
    assert event == {
        "id": 1,
        "time": "2026-01-01T12:00:00.000+00:00",
        "boot_id": kept.boot_id,
        "kind": "trim",
        "by": "watchdog",
        "text": "given back",
        "own_mib": 10420.0,
        "before_mib": 10540.0,
        "freed_mib": 120.0,
    }
    assert kept.since() == [event]


def test_the_ring_keeps_the_newest_and_gives_them_in_order() -> None:
    kept = events(kept=5)
    for _ in range(9):
        kept.record("warn", "again")
    assert [event["id"] for event in kept.since()] == [5, 6, 7, 8, 9]
    assert [event["id"] for event in kept.since(7)] == [8, 9]
    assert [event["id"] for event in kept.since(0, 2)] == [8, 9]
    assert kept.since(9) == []


def test_the_next_boot_knows_and_goes_on_counting(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    first = events(path)
    first.record("warn", "one")
    first.record("warn", "two")
    second = events(path)
    second.record("warn", "three")
    assert [(event["id"], event["boot_id"]) for event in read(path)] == [
        (1, first.boot_id),
        (2, first.boot_id),
        (3, second.boot_id),
    ]
    assert second.since() == read(path)


def test_the_file_is_bounded_and_the_newest_are_in_it(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    kept = events(path, file_bytes=2000)
    for number in range(200):
        kept.record("warn", f"number {number}")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["events.jsonl", "events.jsonl.1"]
    assert all(file.stat().st_size <= 2000 for file in tmp_path.iterdir())
    found = [event["text"] for event in read(path)]
    assert found[-1] == "number 199"
    assert found == [f"number {number}" for number in range(200 - len(found), 200)]


def test_only_the_end_of_a_long_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events(path).record("warn", "the first")
    with path.open("ab") as file:
        file.write(b"x" * TAIL_BYTES + b"\n")
    events(path).record("warn", "the last")
    assert [event["text"] for event in read(path)] == ["the last"]


@pytest.mark.parametrize(
    "broken", [b'{"id": 1, "time"', b"\xff\xfe", b"[]\n", b"7\n", b'{"id": "x"}\n', b"\n\n"]
)
def test_what_a_crash_left_is_passed_over(tmp_path: Path, broken: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(broken)
    kept = events(path)
    kept.record("warn", "whole")
    assert [event["text"] for event in read(path)] == ["whole"]
    assert [json.loads(line)["text"] for line in path.read_bytes().splitlines()[-1:]] == ["whole"]


def test_a_place_that_can_not_be_written_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = events(tmp_path / "nowhere" / "events.jsonl")
    kept.record("warn", "one")
    kept.record("warn", "two")
    assert len(kept.since()) == 2
    assert caplog.text.count("can not be written") == 1


def test_a_start_after_the_watchdogs_drain_is_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    first = events(path)
    first.begin()
    first.reading = lambda: {"own_mib": 10803.0}
    first.record("drain", "a restart is coming", by="watchdog")
    first.record("stop", "told to")
    first.record("stopped", "drained: 2 answers finished, 0 cut")
    second = events(path)
    second.begin()
    third = events(path)
    third.begin()
    kinds = [event["kind"] for event in third.since()]
    assert kinds == ["start", "drain", "stop", "stopped", "restart", "start"]
    restart = second.since()[-1]
    assert restart["text"] == "started again by the watchdog's hand; drained: 2 answers finished, 0 cut"
    assert (restart["by"], restart["before_mib"]) == ("watchdog", 10803.0)


def test_a_drain_that_came_to_nothing_is_forgotten_by_the_next_stop(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    first = events(path)
    first.begin()
    first.record("drain", "a restart is coming", by="watchdog")
    first.record("recover", "it never came")
    first.record("stop", "told to, by a person")
    first.record("stopped", "drained: 0 answers finished, 0 cut")
    second = events(path)
    second.begin()
    assert second.since()[-1]["kind"] == "start"
