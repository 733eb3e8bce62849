"""Three strikes and what they cost: decided by the watchdog's container, witnessed by the engine's events."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from typing import Any

import aiohttp

from tests.docker.stack import HIGH, LOW, Stack, until

# Some thousand tokens that nothing ends early: several seconds of streaming, on a busy machine a minute.
LONG = {
    "prompt": "Tell me a story.",
    "max_tokens": 1500,
    "stream": True,
    "timeout": 300,
    "logit_bias": {"0": -100, "2": -100},
}


def restarts(project: Stack) -> int:
    return project.acts().count("restart")


def restarted_once(project: Stack, acts: int) -> None:
    """The new container runs before the daemon has answered, and so before the act is written down."""
    until(lambda: restarts(project) > acts, "the restart is written down")
    assert restarts(project) - acts == 1


def looked(project: Stack, times: int) -> None:
    until(lambda: project.looks() >= times, f"{times} looks")


def test_three_highs_restart_exactly_once_and_it_serves_again(calm: Stack) -> None:
    acts, before = restarts(calm), calm.started_at()
    calm.readings(HIGH, HIGH, HIGH, HIGH, LOW)
    until(lambda: calm.started_at() != before, "a new start")
    until(calm.ready, "ready again")
    looked(calm, calm.looks() + 5)
    restarted_once(calm, acts)
    assert "Paris" in calm.ask()[1]["generated_text"]


def test_what_was_done_and_why_is_one_line(calm: Stack) -> None:
    before = calm.started_at()
    calm.readings(HIGH, HIGH, HIGH, HIGH, LOW)
    until(lambda: calm.started_at() != before, "a new start")
    until(calm.ready, "ready again")
    until(lambda: any("restarted" in json.dumps(line) for line in calm.watchdog_said()), "a line about it")
    said = [json.dumps(line) for line in calm.watchdog_said() if "restarted" in json.dumps(line)]
    assert "11000, 11000, 11000 MiB > 10752" in said[-1]


def test_a_low_reading_in_between_clears_the_strikes(calm: Stack) -> None:
    acts = restarts(calm)
    calm.readings(HIGH, HIGH, LOW, HIGH, LOW)
    looked(calm, 8)
    assert restarts(calm) - acts == 0


def test_failures_in_between_neither_count_nor_clear(calm: Stack) -> None:
    acts, before = restarts(calm), calm.started_at()
    calm.readings(HIGH, "fail", HIGH, "fail", LOW)
    looked(calm, 7)
    assert restarts(calm) - acts == 0
    calm.readings(HIGH, "[N/A]", HIGH, HIGH, HIGH, LOW)
    until(lambda: calm.started_at() != before, "a new start")
    until(calm.ready, "ready again")
    restarted_once(calm, acts)


def test_a_stream_survives_the_restart_whole(calm: Stack) -> None:
    acts, before = restarts(calm), calm.started_at()
    told: list[str] = []
    request = urllib.request.Request(
        calm.url + "/v1/completions", json.dumps(LONG).encode(), {"content-type": "application/json"}
    )

    def read() -> None:
        with urllib.request.urlopen(request, timeout=60) as answer:
            told.extend(line.decode().strip() for line in answer)

    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: bool(told), "the stream has begun")
    calm.readings(HIGH, HIGH, HIGH, HIGH, LOW)
    until(lambda: calm.started_at() != before, "a new start")
    reader.join(60)
    data = [line.removeprefix("data: ") for line in told if line]
    assert data[-1] == "[DONE]"
    assert not any('"error"' in line for line in data)
    restarted_once(calm, acts)


def test_fifty_requests_over_a_restart(calm: Stack) -> None:
    """Each that reached the sidecar has a whole answer or a typed error; none hangs."""
    before = calm.started_at()
    outcomes = asyncio.run(_steady_load(calm, before))
    kinds = {kind: outcomes.count(kind) for kind in sorted(set(outcomes))}
    print(f"over a restart: {kinds}")
    assert len(outcomes) >= 50
    assert set(outcomes) <= {"whole", "typed error", "not accepted"}
    assert kinds["whole"] > 0


async def _steady_load(project: Stack, before: str) -> list[str]:
    """Fifty clients, each asking again and again until the sidecar is back."""
    project.readings(HIGH, HIGH, HIGH, HIGH, LOW)
    outcomes: list[str] = []
    away: list[float] = []
    back = asyncio.Event()

    async def client(session: aiohttp.ClientSession) -> None:
        while not back.is_set():
            outcomes.append(outcome := await _ask(session, project.url))
            if outcome == "not accepted":
                away.append(asyncio.get_running_loop().time())
                await asyncio.sleep(0.1)

    async def watch() -> None:
        while not await asyncio.to_thread(lambda: project.started_at() != before and project.ready()):
            await asyncio.sleep(0.2)
        back.set()

    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.timeout(300):
        await asyncio.gather(watch(), *(client(session) for _ in range(50)))
    if away:
        print(f"nobody was accepted for {away[-1] - away[0]:.1f} s")
    return outcomes


async def _ask(session: aiohttp.ClientSession, url: str) -> str:
    began = False
    try:
        async with session.post(
            f"{url}/generate", json={"prompt": "What is the capital of France?"}
        ) as answer:
            began = True
            body: dict[str, Any] = await answer.json()
    except (aiohttp.ClientError, ConnectionError) as error:
        return f"broken off: {error!r}" if began else "not accepted"
    if answer.status == 200:
        return "whole" if "Paris" in body["generated_text"] else f"wrong: {body}"
    return "typed error" if body.get("error", {}).get("code") else f"untyped: {answer.status} {body}"


def test_the_budget_ends_a_storm(calm: Stack) -> None:
    """High for ever: three restarts, then alerts only, while the sidecar goes on serving."""
    acts = restarts(calm)
    calm.readings(HIGH)
    until(lambda: restarts(calm) - acts >= 3, "three restarts", 600)
    until(calm.ready, "ready again")
    looked(calm, calm.looks() + 10)
    assert restarts(calm) - acts == 3
    assert "Paris" in calm.ask()[1]["generated_text"]
