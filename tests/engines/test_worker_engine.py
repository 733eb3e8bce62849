"""The worker's supervision: a real process, a real socket, and a fake worker that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import cast

import psutil
import pytest
import uvloop

from sidecar.engine import Failed, Loading, Ready
from sidecar.engines.child import Child, restart_delay_s
from sidecar.engines.worker import WorkerEngine
from sidecar.errors import EngineCrashed, EngineStalled, NotReady
from sidecar.events import Events
from sidecar.generation import Delta, Done, Event, Finished, GenerationRequest, Price, Started
from sidecar.worker.messages import WorkerConfig
from tests.engines import waiting

FAKE = Path(__file__).parents[1] / "fakes" / "worker.py"
CONFIG = WorkerConfig(
    sources=("none",), context=512, slots=4, batch_tokens=64, kv_tokens=None, default_max_tokens=64
)
LONG = " ".join(f"word{i}" for i in range(5000))


until = partial(waiting.until, seconds=20.0)


@contextlib.asynccontextmanager
async def engine(*script: str, stall_s: float = 60.0) -> AsyncIterator[WorkerEngine]:
    """Restarts at once, five times at most: the real waits are a table further down."""
    made = WorkerEngine(
        CONFIG,
        {},
        (sys.executable, str(FAKE), *script),
        stall_s,
        lambda deaths, _: 0.01 if len(deaths) < 5 else None,
    )
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def ready(made: WorkerEngine) -> None:
    await until(lambda: isinstance(made.state(), Ready), "ready")


async def answer(made: WorkerEngine, id: str, text: str) -> list[Event]:
    request = GenerationRequest(id, text)
    await made.price(request)
    return [event async for event in made.stream(request)]


async def begun(made: WorkerEngine, id: str) -> AsyncGenerator[Event]:
    """A long answer whose first words have come."""
    request = GenerationRequest(id, LONG)
    await made.price(request)
    events = cast(AsyncGenerator[Event], made.stream(request))
    assert isinstance(await anext(events), Started)
    assert isinstance(await anext(events), Delta)
    return events


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())


def test_an_answer_comes_as_started_deltas_finished_done() -> None:
    async def test() -> None:
        async with engine() as made:
            await ready(made)
            events = await answer(made, "a", "one two")
            assert [type(event) for event in events] == [Started, Delta, Delta, Finished, Done]

    run(test)


def test_what_is_given_back_is_told_with_what_is_left() -> None:
    async def test() -> None:
        async with engine() as made:
            await ready(made)
            assert await asyncio.gather(made.trim(), made.trim()) == [12.5, 12.5]
            assert made.stats().resident_bytes == 1024**2

    run(test)


def test_a_worker_that_dies_while_it_trims_has_given_back_everything() -> None:
    async def test() -> None:
        async with engine("mute") as made:
            await ready(made)
            assert made.worker_pid is not None
            os.kill(made.worker_pid, signal.SIGSTOP)
            trimming = asyncio.create_task(made.trim())
            await asyncio.sleep(0)
            os.kill(made.worker_pid, signal.SIGKILL)
            assert await trimming == 0.0

    run(test)


def test_beginnings_and_ends_are_events() -> None:
    async def test() -> None:
        events = Events()
        made = WorkerEngine(
            CONFIG, {}, (sys.executable, str(FAKE)), 60.0, lambda deaths, _: 0.01, events=events
        )
        await made.start()
        await ready(made)
        assert made.worker_pid is not None
        os.kill(made.worker_pid, signal.SIGKILL)
        await until(lambda: len(events.since()) >= 5, "started again")
        await made.stop()
        assert [event["kind"] for event in events.since()] == [
            "engine_start",
            "engine_ready",
            "engine_death",
            "engine_start",
            "engine_ready",
            "engine_stop",
        ]
        assert "exit code -9" in events.since()[2]["text"]

    run(test)


def test_a_refusal_is_an_event_with_its_reason() -> None:
    async def test() -> None:
        events = Events()
        made = WorkerEngine(CONFIG, {}, (sys.executable, str(FAKE), "refuse"), events=events)
        await made.start()
        await until(lambda: isinstance(made.state(), Failed), "refused")
        await made.stop()
        assert [event["kind"] for event in events.since()][:2] == ["engine_start", "engine_failed"]
        assert events.since()[1]["text"] == "refused on purpose"

    run(test)


def test_before_it_is_ready_it_says_so() -> None:
    async def test() -> None:
        async with engine() as made:
            assert isinstance(made.state(), Loading)
            with pytest.raises(NotReady, match="not ready yet"):
                await made.price(GenerationRequest("a", "x"))

    run(test)


def test_a_worker_killed_in_mid_stream_is_a_typed_error_and_comes_back() -> None:
    async def test() -> None:
        async with engine() as made:
            await ready(made)
            events, pid = await begun(made, "a"), made.worker_pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(EngineCrashed):
                async for _ in events:
                    pass
            assert isinstance(made.state(), Loading)
            assert made.state().was_ready
            await ready(made)
            assert made.worker_pid != pid
            assert isinstance((await answer(made, "b", "again"))[-1], Done)

    run(test)


def test_what_is_asked_in_the_moment_of_a_death_is_asked_of_the_next_worker() -> None:
    """On the product's own loop, which raises when a closed socket is written to."""

    async def test() -> None:
        async with engine() as made:
            await ready(made)
            assert made.worker_pid is not None
            os.kill(made.worker_pid, signal.SIGKILL)
            prices = []
            while isinstance(made.state(), Ready):
                request = GenerationRequest(f"at-{len(prices)}", "four little words here")
                prices.append(asyncio.create_task(made.price(request)))
                await asyncio.sleep(0)
            found = await asyncio.gather(*prices, return_exceptions=True)
            # The last of them may have come when its death was known.
            assert {price for price in found if not isinstance(price, NotReady)} == {Price(4, 4, 1)}

    uvloop.run(test())


def test_a_request_that_only_waited_does_not_notice_a_restart() -> None:
    async def test() -> None:
        async with engine() as made:
            await ready(made)
            request = GenerationRequest("queued", "still here")
            await made.price(request)
            old = made.worker_pid
            assert old is not None
            os.kill(old, signal.SIGKILL)
            await until(lambda: not isinstance(made.state(), Ready), "its death is noticed")
            events = [event async for event in made.stream(request)]
            assert "".join(e.text for e in events if isinstance(e, Delta)) == "still here "

    run(test)


def test_a_worker_that_never_loads_is_given_up_and_the_reason_is_told() -> None:
    async def test() -> None:
        async with engine("die-loading") as made:
            await until(lambda: isinstance(made.state(), Failed), "given up")
            state = made.state()
            assert isinstance(state, Failed)
            assert "died 5 times before it was ever ready, last with exit code 3" in state.reason
            assert "missing tensor 'output.weight'" in state.reason
            assert not state.was_ready
            with pytest.raises(NotReady, match="can not be served"):
                await made.price(GenerationRequest("a", "x"))

    run(test)


def test_a_worker_that_ends_for_lack_of_memory_is_restarted_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        async with engine("bad-alloc") as made:
            await ready(made)
            with pytest.raises(EngineCrashed):
                await answer(made, "a", "x")
            await ready(made)

    run(test)
    assert "it ended itself because memory ran out (std::bad_alloc)" in caplog.text


def test_a_refused_load_is_final_at_once() -> None:
    async def test() -> None:
        async with engine("refuse") as made:
            await until(lambda: isinstance(made.state(), Failed), "failed")
            assert made.state() == Failed("refused on purpose", 78)

    run(test)


def test_a_worker_that_says_nothing_is_replaced() -> None:
    async def test() -> None:
        async with engine("mute", stall_s=0.5) as made:
            await ready(made)
            request = GenerationRequest("a", "x")
            await made.price(request)
            with pytest.raises(EngineStalled):
                async for _ in made.stream(request):
                    pass
            await ready(made)

    run(test)


def test_a_stopped_process_counts_as_silent() -> None:
    async def test() -> None:
        async with engine(stall_s=0.5) as made:
            await ready(made)
            events, pid = await begun(made, "a"), made.worker_pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(EngineStalled):
                async for _ in events:
                    pass

    run(test)


def test_a_broken_frame_is_a_crash_and_not_an_exception_of_ours() -> None:
    async def test() -> None:
        async with engine("garbage") as made:
            await until(lambda: isinstance(made.state(), Failed), "given up")

    run(test)


def test_closing_the_iterator_returns_when_the_worker_has_let_go() -> None:
    async def test() -> None:
        async with engine() as made:
            await ready(made)
            events = await begun(made, "a")
            async with asyncio.timeout(1):
                await events.aclose()
            # The same id may be used again only after the last word: it works at once.
            assert isinstance((await answer(made, "a", "free again"))[-1], Done)

    run(test)


def test_stop_leaves_nobody_behind() -> None:
    async def test() -> None:
        async with engine("orphan", "stubborn") as made:
            grandchild = 0
            async with asyncio.timeout(20):
                while not isinstance(made.state(), Ready):
                    state = made.state()
                    if isinstance(state, Loading) and state.detail.isdigit():
                        grandchild = int(state.detail)
                    await asyncio.sleep(0)
            pid = made.worker_pid
            assert pid is not None
            grandchild = grandchild or psutil.Process(pid).children()[0].pid
        for gone in (pid, grandchild):
            await until(lambda gone=gone: not _alive(gone), f"process {gone} gone")

    run(test)


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_many_lives_leave_no_process_and_no_descriptor() -> None:
    async def test() -> None:
        own = psutil.Process()
        async with engine() as made:
            await ready(made)
        before = own.num_fds()
        for _ in range(5):
            async with engine() as made:
                await ready(made)
                await answer(made, "a", "one")
        assert own.num_fds() <= before
        assert [c for c in own.children() if "worker.py" in " ".join(c.cmdline())] == []

    run(test)


@pytest.mark.parametrize(
    ("deaths", "delay"),
    [([100.0], 1), ([98.0, 100.0], 2), ([96.0, 98.0, 100.0], 4), ([95.0] * 4, 8), ([95.0] * 5, None)],
)
def test_restarts_wait_longer_each_time_and_end(deaths: list[float], delay: float | None) -> None:
    assert restart_delay_s(deaths, 100.0) == delay


def test_old_deaths_are_forgiven() -> None:
    assert restart_delay_s([0.0] * 20 + [700.0], 700.0) == 1


def test_a_talkative_child_is_read_and_its_last_words_kept() -> None:
    async def test() -> None:
        flood = "import sys; sys.stderr.write('x' * 5_000_000 + '\\nlast words\\n')"
        child = await Child.start([sys.executable, "-c", flood])
        async with asyncio.timeout(20):
            assert await child.ended() == 0
        assert child.tail().endswith("last words")
        assert len(child.tail()) < 10_000

    run(test)
