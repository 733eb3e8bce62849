"""Two servers behind one door: what a client sees while one of them is killed, or restarted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.program import until
from tests.fakes.docker_daemon import Answer, FakeDocker, csv, serving
from tests.faults.clients import Outcome
from tests.stack.door import MODEL, Door, answered, busy, door, errors, running
from tests.watchdog.program import watchdog

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
CLIENTS = 6
LONG = " ".join(f"word{n}" for n in range(300))
OURS = {"gpu-server-1", "gpu-server-2"}
HOSTED = "fallback-together"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("stack")
    with running(folder, "gpu-server-1", "gpu-server-2", "hosted") as (*ours, hosted):
        account = {
            "TOGETHER_API_KEY": "k" * 20,
            "TOGETHER_MODEL": MODEL,
            "TOGETHER_BASE_URL": f"{hosted.url}/v1",
        }
        with door(folder, ours, FALLBACK="1", FALLBACK_PER_HOUR="2", **account) as up:
            yield up


def test_answers_whole_and_streamed(stack: Door) -> None:
    async def both() -> None:
        for stream in (False, True):
            outcome = await stack.asked(stack.ask("Paris it is", stream))
            assert (outcome.kind, outcome.texts) == ("complete", ("Paris it is",))

    asyncio.run(both())


def test_a_bad_request_is_answered_as_such_and_hurts_nobody(stack: Door) -> None:
    async def ask() -> None:
        bad = stack.ask()
        bad.body["temperature"] = 9
        for _ in range(3):
            outcome = await stack.asked(bad)
            assert (outcome.kind, outcome.status) == ("error", 400)
        assert (await stack.asked(stack.ask())).kind == "complete"

    asyncio.run(ask())


def test_the_next_request_goes_to_the_server_with_less_to_do(stack: Door) -> None:
    async def ask() -> None:
        waiting = []
        for number in range(1, 7):
            waiting.append(asyncio.create_task(stack.asked(stack.ask(LONG, True, pace_ms=15))))
            await asyncio.to_thread(_until_busy, stack, number)
        assert [busy(server) for server in stack.servers] == [3, 3]
        assert not errors(await asyncio.gather(*waiting))

    asyncio.run(ask())


def test_killed_under_load_and_back_again(stack: Door) -> None:
    """What had not begun is answered by the other one; what had begun ends with an error that says so."""

    async def ask() -> None:
        victim, name = stack.servers[0], "gpu-server-1"
        # One on each, since each has less to do than the other in its turn.
        begun = []
        for number in (1, 2):
            begun.append(asyncio.create_task(stack.asked(stack.ask(LONG, True, pace_ms=20))))
            await asyncio.to_thread(_until_busy, stack, number)
        async with stack.load(CLIENTS) as outcomes:
            await answered(outcomes, 20)
            victim.kill()
            await answered(outcomes, 40)
            await asyncio.to_thread(victim.start)
            await answered(outcomes, 5, name)
        assert sorted((o.kind, o.status) for o in await asyncio.gather(*begun)) == [
            ("complete", 200),
            ("error", 200),
        ]
        assert not [o for o in errors(outcomes) if not o.texts], "these had not begun to stream"
        assert HOSTED not in {o.headers.get("x-litellm-model-id") for o in outcomes}
        assert all(o.kind == "error" for o in errors(outcomes)), "a stream merely stopped"

    asyncio.run(ask())


def test_a_restart_by_the_watchdog_is_invisible(stack: Door, tmp_path: Path) -> None:
    """It finishes its streams, and new ones go to the other. What Docker does, its stand-in does here."""

    async def ask() -> None:
        restarted, name = stack.servers[1], "gpu-server-2"
        docker = FakeDocker(restart=restarted.restart)
        docker.smi = lambda _: Answer(csv(11000 if docker.boot == 1 else 9000))
        socket = tmp_path / "docker.sock"
        async with stack.load(CLIENTS) as outcomes:
            await answered(outcomes, 20)
            with serving(docker, socket), watchdog(f"unix://{socket}", tmp_path):
                await asyncio.to_thread(until, lambda: docker.boot == 2, "it was restarted")
                await answered(outcomes, 5, name)
        assert docker.restarts() == 1
        assert not errors(outcomes)
        assert {_by(o) for o in outcomes} == OURS

    asyncio.run(ask())


def test_a_hosted_provider_is_no_model_of_the_door(stack: Door) -> None:
    async def ask() -> None:
        direct = stack.ask()
        direct.body["model"] = HOSTED
        assert (await stack.asked(direct)).kind == "error"

    asyncio.run(ask())


def test_where_none_of_ours_can_answer_the_hosted_one_does_as_often_as_it_may(stack: Door) -> None:
    async def ask() -> None:
        for server in stack.servers:
            server.kill()
        found = [await stack.asked(stack.ask("from afar", stream)) for stream in (True, False, False)]
        assert [(o.kind, o.texts) for o in found] == [("complete", ("from afar",))] * 2 + [("error", ())]
        assert [_by(o) for o in found[:2]] == [HOSTED] * 2
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in stack.servers))
        async with stack.load(2) as outcomes:
            await answered(outcomes, 2, "gpu-server-1")

    asyncio.run(ask())


def _by(outcome: Outcome) -> str:
    """Who answered, as the door says it."""
    return outcome.headers["x-litellm-model-id"]


def _until_busy(stack: Door, count: int) -> None:
    until(lambda: sum(busy(server) for server in stack.servers) >= count, f"{count} at work")
