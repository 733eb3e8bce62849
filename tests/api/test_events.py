"""`GET /events` and `llm-sidecar events`."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sidecar import events_command
from sidecar.cli import main
from sidecar.errors import ConfigError
from sidecar.events import KEPT, Event, Events
from tests.fakes.live import Live, live_server

HEADER = "time (UTC)           what            who         own MiB     freed"


@pytest.fixture(scope="module")
def told() -> Iterator[Live]:
    """A server to which five things happened."""
    with live_server(api_key="key") as live:
        for number in range(5):
            live.service.events.record("trim", f"number {number}", by="watchdog", freed_mib=12.5)
        yield live


def get(live: Live, query: str = "", key: str = "key") -> httpx.Response:
    return httpx.get(f"{live.url}/events{query}", headers={"authorization": f"Bearer {key}"})


@pytest.mark.parametrize(
    ("query", "texts"),
    [
        ("", range(5)),
        ("?since=3", (3, 4)),
        ("?limit=1", (4,)),
        ("?since=1&limit=2", (3, 4)),
        ("?since=5", ()),
    ],
)
def test_the_newest_is_last(told: Live, query: str, texts: Iterator[int]) -> None:
    body = get(told, query).json()
    assert [event["text"] for event in body["events"]] == [f"number {number}" for number in texts]
    assert body["boot_id"] == told.service.events.boot_id


@pytest.mark.parametrize(
    "query", ["?since=-1", "?since=x", "?since=", "?limit=0", f"?limit={KEPT + 1}", "?limit=1e3", "?since=٣"]
)
def test_what_can_not_be_counted_is_400(told: Live, query: str) -> None:
    answer = get(told, query)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


def test_only_with_the_key(told: Live) -> None:
    assert get(told, key="another").status_code == 401


def run(monkeypatch: pytest.MonkeyPatch, *argv: str, **environ: str) -> int:
    for name in ("CONTROL_SOCKET", "EVENTS_FILE", "API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return main(["events", *argv])


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_table_for_people(
    told: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--url", told.url, API_KEY="key") == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert (header, len(lines)) == (HEADER, 5)
    assert lines[-1].split() == [*lines[-1].split()[:2], "trim", "watchdog", "0", "12", "number", "4"]


def test_lines_for_programs(
    told: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--url", told.url, "--json", API_KEY="key") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found == told.service.events.since()


def test_the_file_when_the_server_is_down(
    tmp_path: Path, nobody: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Events(tmp_path / "events.jsonl").record("warn", "before it died")
    assert run(monkeypatch, "--url", nobody, CONTROL_SOCKET=str(tmp_path / "control.sock")) == 0
    assert "before it died" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["--url", "file:///etc/passwd"], ["--url", "llm-sidecar:8000"]])
def test_an_address_that_is_none(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *argv) == 78
    assert "--url" in capsys.readouterr().err


def test_neither_server_nor_file_is_one_line(
    nobody: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--url", nobody) == 78
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert (nobody in said, "EVENTS_FILE" in said) == (True, True)


def test_a_wrong_key_is_said(
    told: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--url", told.url) == 78
    assert "API_KEY" in capsys.readouterr().err


def test_following_shows_each_once_and_outlives_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    def event(boot: str, id: int) -> Event:
        return {"boot_id": boot, "id": id}

    answers: Iterator[list[Event] | None] = iter(
        [
            [event("a", 1)],
            [event("a", 1), event("a", 2)],
            None,
            [event("b", 1)],
            [event("b", 1), event("b", 2)],
        ]
    )

    def ask() -> list[Event]:
        found = next(answers)
        if found is None:
            raise ConfigError("nobody answers")
        return found

    monkeypatch.setattr(events_command, "FOLLOW_SECONDS", 0.0)
    shown = events_command.followed(ask)
    assert [(e["boot_id"], e["id"]) for e in (next(shown) for _ in range(4))] == [
        ("a", 1),
        ("a", 2),
        ("b", 1),
        ("b", 2),
    ]
