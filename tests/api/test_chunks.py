"""What is written in one turn of the loop goes out together, and nothing of it is lost or passes another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, cast

import httpx
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import RequestResponseCycle

from sidecar.api.chunks import Chunks, Outbox, way
from sidecar.api.render import TextRender
from sidecar.api.sse import Ahead
from sidecar.generation import Delta, Done, Event, Finished, Started
from tests.fakes.engine import ScriptedEngine
from tests.fakes.live import live_server


class Wire(asyncio.Transport):
    """Keeps what is written, as a connection would send it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.over = False

    def is_closing(self) -> bool:
        return self.over

    def write(self, data: Any) -> None:
        assert not self.over
        self.sent.append(bytes(data))


def test_a_turn_is_one_send_for_each_connection() -> None:
    async def story() -> None:
        outbox, one, other, gone = Outbox(), Wire(), Wire(), Wire()
        for index in range(3):
            outbox.put(one, b"%d" % index)
            outbox.put(gone, b"?")
            outbox.put(other, b"%d" % (index + 5))
        assert one.sent == other.sent == []
        gone.over = True  # whoever has left keeps nobody else's from them
        await asyncio.sleep(0)
        assert (one.sent, other.sent, gone.sent) == ([b"012"], [b"567"], [])
        outbox.put(one, b"3")
        outbox.flush()
        outbox.flush()
        await asyncio.sleep(0)
        assert one.sent == [b"012", b"3"]

    asyncio.run(story())


class Client:
    """One that is there, and reads; its answer's chunks go to a wire."""

    def __init__(self) -> None:
        self.wire, self.outbox, self.disconnected = Wire(), Outbox(), False
        self.flow = FlowControl(self.wire)
        self.chunks = Chunks(self.outbox, self.wire, self.flow, cast(RequestResponseCycle, self))

    def read(self) -> list[bytes]:
        self.outbox.flush()
        found, self.wire.sent = self.wire.sent, []
        return found


def test_chunks_are_open_to_a_client_that_is_there_and_reads() -> None:
    async def story() -> None:
        client = Client()
        assert client.chunks.open and not client.chunks.wrote
        await client.chunks.write(b"one")
        assert client.read() == [b"3\r\none\r\n"] and client.chunks.wrote
        client.flow.pause_writing()
        assert not client.chunks.open
        late = asyncio.create_task(client.chunks.write(b"two"))
        await asyncio.sleep(0)
        assert client.read() == []
        client.flow.resume_writing()
        await late
        assert client.read() == [b"3\r\ntwo\r\n"] and client.chunks.open
        client.disconnected = True
        assert not client.chunks.open
        await client.chunks.write(b"three")
        assert client.read() == []

    asyncio.run(story())


def test_only_text_goes_ahead_and_only_to_a_client_that_keeps_up() -> None:
    async def story() -> None:
        ahead, client, text, render = Ahead(), Client(), Delta(0, "word"), TextRender("id", "m")
        assert not ahead(text)
        ahead.render = render
        assert not ahead(text)
        ahead.chunks = client.chunks
        assert ahead(text)
        assert [render.frame(render.delta(text)) in sent for sent in client.read()] == [True]
        assert not ahead(Finished(0, "stop"))
        assert not ahead(Delta(0, "half of a pair: \ud800"))  # no JSON; the stream tells
        client.flow.pause_writing()
        assert not ahead(text)
        assert client.read() == []

    asyncio.run(story())


def test_the_text_of_an_answer_goes_ahead_of_its_batches() -> None:
    with live_server(ScriptedEngine()) as own, httpx.Client(base_url=own.url, timeout=10) as http:
        batches, read = own.service.batches, list[Event]()

        async def noted(*given: Any, **options: Any) -> AsyncGenerator[list[Event], None]:
            async with contextlib.aclosing(batches(*given, **options)) as found:
                async for batch in found:
                    read.extend(batch)
                    yield batch

        own.service.batches = noted  # type: ignore[method-assign]  # looks on, and changes nothing
        answer = http.post("/v1/completions", json={"prompt": "[pace:20]", "stream": True})
        assert answer.text.count('"text":') == 7
        kinds = [type(event) for event in read]
        assert kinds.count(Delta) <= 2  # the first may come while the status is written
        assert kinds[0] is Started and kinds[-2:] == [Finished, Done]


def test_any_other_server_has_a_way_that_is_never_ahead() -> None:
    async def story() -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        found = way({"type": "http"}, send)
        await found.write(b"word")
        assert found.wrote
        assert sent == [{"type": "http.response.body", "body": b"word", "more_body": True}]

    asyncio.run(story())
