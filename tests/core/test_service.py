"""The one path: order of events, deadlines, slots given back, draining."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from sidecar.engine import Failed, Loading
from sidecar.errors import DeadlineExceeded, Draining, EngineFault, NotReady, OutOfMemory, QueueFull
from sidecar.event_order import EventOrder
from sidecar.gate import Gate
from sidecar.generation import (
    Capacity,
    Delta,
    Done,
    Embeddings,
    Event,
    Finished,
    GenerationRequest,
    Price,
    Started,
    Usage,
)
from sidecar.logs import JsonLines
from sidecar.metrics import Metrics
from sidecar.run import Drained
from sidecar.service import Service
from sidecar.shelf import ServedModel, only
from tests.fakes.engine import ANSWER, ScriptedEngine

DONE = Done(Usage(1, 1))
MODEL = ServedModel("scripted")


def service(engine: ScriptedEngine) -> Service:
    return Service(only(MODEL, engine), MODEL, Gate(), Metrics(CollectorRegistry()))


def request(prompt: str, deadline_s: float = 30.0, n: int = 1) -> GenerationRequest:
    return GenerationRequest("r", prompt, 16, n=n, deadline_s=deadline_s)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


async def all_of(served: Service, asked: GenerationRequest) -> list[Event]:
    return [event async for event in served.stream(asked)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


def count(served: Service, status: str) -> float | None:
    return served.metrics.registry.get_sample_value("inference_requests_total", {"status": status})


def test_a_whole_answer() -> None:
    async def story() -> None:
        served = service(ScriptedEngine())
        events = await all_of(served, request("hi", n=2))
        assert isinstance(events[0], Started)
        assert isinstance(events[-1], Done)
        text = "".join(e.text for e in events if isinstance(e, Delta) and e.choice == 1)
        assert text == ANSWER
        assert sum(isinstance(e, Finished) for e in events) == 2
        assert count(served, "success") == 1

    run(story)


@pytest.mark.parametrize(
    "events",
    [
        [Delta(0, "x")],
        [Started(1), Started(1)],
        [Started(1), Delta(1, "x")],
        [Started(1), Finished(0, "stop"), Delta(0, "x")],
        [Started(1), Finished(0, "stop"), Finished(0, "stop")],
        [Started(1), DONE],
        [Started(1), Finished(0, "stop"), DONE, DONE],
    ],
)
def test_events_out_of_order(events: list[Event]) -> None:
    order = EventOrder(choices=1)
    for event in events[:-1]:
        order.accept(event)
    with pytest.raises(EngineFault):
        order.accept(events[-1])


def test_an_early_end_is_a_fault() -> None:
    async def story() -> None:
        with pytest.raises(EngineFault, match="ended early"):
            await all_of(service(ScriptedEngine()), request("[early]"))

    run(story)


def test_an_error_keeps_its_class_and_frees_the_slot() -> None:
    async def story() -> None:
        served = service(ScriptedEngine())
        with pytest.raises(OutOfMemory):
            await all_of(served, request("[fail:2:out_of_memory]"))
        await served.gate.idle()
        assert count(served, "out_of_memory") == 1

    run(story)


def test_an_unexpected_exception_becomes_a_fault() -> None:
    async def story() -> None:
        served = service(ScriptedEngine())
        with pytest.raises(EngineFault, match="RuntimeError"):
            await all_of(served, request("[raise:1]"))
        assert await all_of(served, request("hi"))

    run(story)


def test_a_cancellation_that_nobody_asked_for_becomes_a_fault() -> None:
    """aiohttp cancels whoever waits for a connection when its pool is closed."""

    class Cancelling(ScriptedEngine):
        async def price(self, request: GenerationRequest) -> Price:
            raise asyncio.CancelledError

        async def embed(self, inputs: Sequence[str | tuple[int, ...]]) -> Embeddings:
            raise asyncio.CancelledError

    async def story() -> None:
        served = service(Cancelling())
        async with asyncio.timeout(5):
            for work in (all_of(served, request("hi")), served.embed(["hi"], 5.0)):
                with pytest.raises(EngineFault, match="CancelledError"):
                    await work
        await served.gate.idle()

    run(story)


@pytest.mark.parametrize("hold", [0, 2])
def test_the_deadline_covers_everything(hold: int) -> None:
    async def story() -> None:
        engine = ScriptedEngine()
        served = service(engine)
        with pytest.raises(DeadlineExceeded):
            await all_of(served, request(f"[hold:{hold}]", deadline_s=0.05))
        await served.gate.idle()
        assert not engine.open

    run(story)


def test_a_deadline_that_ends_in_the_queue_is_the_requests_own() -> None:
    async def story() -> None:
        engine = ScriptedEngine(Capacity(slots=1, pages=4096, page_tokens=16, context=6144))
        served = service(engine)
        holder = asyncio.create_task(all_of(served, request("[hold:2]")))
        await until(lambda: bool(engine.held))
        with pytest.raises(DeadlineExceeded):
            await all_of(served, request("hi", deadline_s=0.05))
        assert (served.gate.running, served.gate.waiting) == (1, 0)
        engine.release()
        await holder

    run(story)


def test_no_more_are_priced_at_once_than_have_a_place() -> None:
    """4 slots and 2 places: of 50 requests, 6 reach the worker's text thread, the others are told at once."""

    async def story() -> None:
        pricing = asyncio.Event()

        class Slow(ScriptedEngine):
            async def price(self, request: GenerationRequest) -> Price:
                found = await super().price(request)
                await pricing.wait()
                return found

        engine = Slow()
        served = Service(only(MODEL, engine), MODEL, Gate(max_queue=2), Metrics(CollectorRegistry()))
        work = [asyncio.create_task(all_of(served, request("hi"))) for _ in range(50)]
        await until(lambda: sum(task.done() for task in work) == 44)
        assert all(isinstance(task.exception(), QueueFull) for task in work if task.done())
        assert len(engine.requests) == 6
        pricing.set()
        await asyncio.wait(work)
        assert sum(task.exception() is None for task in work) == 6

    run(story)


def test_the_slot_stays_taken_until_the_engine_lets_go() -> None:
    async def story() -> None:
        engine = ScriptedEngine()
        served = service(engine)
        events = served.stream(request("[stubborn] [hold:2]"))
        assert isinstance(await anext(events), Started)
        await until(lambda: bool(engine.held))
        closing = asyncio.create_task(events.aclose())
        await until(lambda: bool(engine.closing and engine.held))
        assert served.gate.running == 1
        engine.release()
        await closing
        assert served.gate.running == 0
        assert count(served, "cancelled") == 1

    run(story)


def test_a_slow_reader_holds_no_slot() -> None:
    async def story() -> None:
        served = service(ScriptedEngine())
        async with aclosing(served.stream(request("hi"))) as events:
            await anext(events)
            await served.gate.idle()
            rest = [event async for event in events]
        assert isinstance(rest[-1], Done)

    run(story)


@pytest.mark.parametrize("state", [Loading("load", 0.5), Failed("no file")])
def test_not_ready_is_said_at_once(state: Loading | Failed) -> None:
    async def story() -> None:
        with pytest.raises(NotReady):
            await all_of(service(ScriptedEngine(state=state)), request("hi"))

    run(story)


@pytest.mark.parametrize("state", [None, Loading("load")])
def test_that_a_model_was_ready_is_known_although_nobody_asked_then(state: Loading | None) -> None:
    async def test() -> None:
        engine = ScriptedEngine(state=state)
        served = service(engine)
        await served.unload()
        assert served.was_ready is (state is None)
        engine.set_state(Loading("load"))
        await served.load(MODEL.id)
        assert served.was_ready is (state is None)

    run(test)


def test_drain_lets_finish_what_fits_and_cuts_the_rest() -> None:
    async def story() -> None:
        engine = ScriptedEngine()
        served = service(engine)
        work = asyncio.create_task(all_of(served, request("[hold:2]")))
        await until(lambda: bool(engine.held))
        assert await served.drain(0.05) == Drained(finished=0, cut=1)
        with pytest.raises(Draining):
            await work
        with pytest.raises(Draining):
            await all_of(served, request("hi"))
        await served.stop()
        assert engine.stopped

    run(story)


def test_the_gate_alone_knows_that_the_service_stops() -> None:
    served = service(ScriptedEngine())
    assert not served.draining
    served.gate.drain()
    assert served.draining
    assert isinstance(served.refusal(), Draining)


def test_drain_waits_for_running_answers() -> None:
    async def story() -> None:
        engine = ScriptedEngine()
        served = service(engine)
        work = asyncio.create_task(all_of(served, request("[hold:2]")))
        await until(lambda: bool(engine.held))
        drained = asyncio.create_task(served.drain(30))
        await until(lambda: served.draining)
        engine.release()
        assert await drained == Drained(finished=1, cut=0)
        assert isinstance((await work)[-1], Done)

    run(story)


def test_who_is_cut_before_the_first_step_is_told() -> None:
    async def story() -> None:
        served = service(ScriptedEngine())
        stream = served.stream(request("hi"))
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)  # the work has a task by now, and that has not run yet
        drained = await served.drain(30)
        async with asyncio.timeout(5):
            with pytest.raises(Draining):
                await first
        assert drained == Drained(finished=0, cut=1)

    run(story)


@pytest.mark.parametrize("log_prompts", [False, True])
def test_prompts_are_logged_only_when_asked_for(log_prompts: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        served = Service(
            only(MODEL, ScriptedEngine()),
            MODEL,
            Gate(),
            Metrics(CollectorRegistry()),
            log_prompts=log_prompts,
        )
        await all_of(served, request("canary-7"))

    with caplog.at_level("INFO"):
        run(story)
    lines = [JsonLines().format(record) for record in caplog.records]
    assert any('"completion_tokens": 6' in line for line in lines)
    assert any("canary-7" in line for line in lines) is log_prompts


def test_when_to_come_back_follows_the_tokens_that_came() -> None:
    """16 tokens may come; nothing is measured yet, so 20 a second are assumed, and the least is a second."""

    async def story() -> None:
        engine = ScriptedEngine(Capacity(slots=1, pages=4096, page_tokens=16, context=6144))
        served = Service(only(MODEL, engine), MODEL, Gate(max_queue=0), Metrics(CollectorRegistry()))

        async def refused() -> float | None:
            with pytest.raises(QueueFull) as told:
                await all_of(served, request("hi"))
            return told.value.retry_after_s

        many = GenerationRequest("r", "[say:a b c d] [hold:4]", 400, n=2)
        work = asyncio.create_task(all_of(served, many))
        await until(lambda: bool(engine.held))
        # Four events, of two choices that count as one side by side: Started and three words.
        assert await refused() == (400 - 4 / 2) / 20
        work.cancel()
        await asyncio.wait([work])

    run(story)


def test_an_answer_that_ends_by_itself_says_how_long_others_are() -> None:
    """Millions of tokens may come, but the last answer ended after six: nobody is told to wait the minute."""

    async def story() -> None:
        engine = ScriptedEngine(Capacity(slots=1, pages=10**9, page_tokens=16, context=10**9))
        served = Service(only(MODEL, engine), MODEL, Gate(max_queue=0), Metrics(CollectorRegistry()))
        await all_of(served, GenerationRequest("r", "hi", 10**8))
        work = asyncio.create_task(all_of(served, GenerationRequest("r", "[hold:2]", 10**8)))
        await until(lambda: bool(engine.held))
        with pytest.raises(QueueFull) as told:
            await all_of(served, request("hi"))
        assert told.value.retry_after_s is not None and told.value.retry_after_s < 60
        work.cancel()
        await asyncio.wait([work])

    run(story)


def test_nobody_who_was_admitted_fails_for_memory_or_is_put_back() -> None:
    """200 requests that want 2000 pages and have 32: each that began ends whole, at its first go."""

    async def story() -> None:
        engine = Counting(Capacity(slots=6, pages=32, page_tokens=16, context=6144))
        door = Gate(max_queue=200, patience_s=0.01)
        served = Service(only(MODEL, engine), MODEL, door, Metrics(CollectorRegistry()))
        sizes = [1, 2, 3, 5, 8, 13, 21, 32]
        work = [
            asyncio.create_task(
                all_of(served, GenerationRequest(str(n), f"[pages:{sizes[n * 7 % 8]}]", 6, deadline_s=60))
            )
            for n in range(200)
        ]
        answers = await asyncio.gather(*work)
        assert all(isinstance(events[-1], Done) for events in answers)
        assert engine.most > 24
        assert sorted(engine.begun, key=int) == [str(n) for n in range(200)]
        assert (door.running, door.waiting, door.pages_reserved) == (0, 0, 0)

    run(story)


class Counting(ScriptedEngine):
    """Holds the pages of what it streams to its own total, as an engine's pool does."""

    def __init__(self, capacity: Capacity) -> None:
        super().__init__(capacity)
        self._pages: dict[str, int] = {}
        self._used = 0
        self.most = 0
        self.begun: list[str] = []

    async def price(self, request: GenerationRequest) -> Price:
        found = await super().price(request)
        self._pages[request.id] = found.pages
        return found

    async def stream(self, request: GenerationRequest) -> AsyncIterator[Event]:
        self.begun.append(request.id)
        self._used += self._pages[request.id]
        self.most = max(self.most, self._used)
        try:
            if self._used > self.capacity.pages:
                raise OutOfMemory("more was let in than there is room for")
            async for event in super().stream(request):
                yield event
        finally:
            self._used -= self._pages[request.id]
