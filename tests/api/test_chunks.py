"""What is written in one turn of the loop goes out together, and nothing of it is lost or passes another."""

from __future__ import annotations

import asyncio
from typing import Any

from sidecar.api.chunks import Outbox, way
from sidecar.api.render import TextRender
from sidecar.api.sse import Ahead
from sidecar.generation import Delta, Finished


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


class Line:
    """A way that keeps what goes along it."""

    def __init__(self) -> None:
        self.wrote, self.open = False, True
        self.sent: list[bytes] = []

    def put(self, body: bytes) -> None:
        self.sent.append(body)

    async def write(self, body: bytes) -> None:
        self.put(body)


def test_only_text_goes_ahead_and_only_once_there_is_a_way() -> None:
    ahead, line, text = Ahead(), Line(), Delta(0, "word")
    assert not ahead(text)
    ahead.render = TextRender("id", "m")
    assert not ahead(text)
    ahead.way = line
    assert ahead(text) and line.sent == [ahead.render.frame(ahead.render.delta(text))]
    assert not ahead(Finished(0, "stop"))
    line.open = False
    assert not ahead(text)
    assert len(line.sent) == 1


def test_what_can_not_be_written_as_json_is_left_to_the_stream_to_tell() -> None:
    ahead = Ahead()
    ahead.render, ahead.way = TextRender("id", "m"), Line()
    assert not ahead(Delta(0, "half of a pair: \ud800"))


def test_any_other_server_has_a_way_that_is_never_ahead() -> None:
    async def story() -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        found = way({"type": "http"}, send)
        assert not found.open
        await found.write(b"word")
        assert found.wrote
        assert sent == [{"type": "http.response.body", "body": b"word", "more_body": True}]

    asyncio.run(story())
