"""Events of a generation as server-sent events.

`data: [DONE]` is sent if and only if the answer is complete. Every other end carries exactly one
error event, since a stream that merely stops looks like success to OpenAI's clients.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

import anyio
import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sidecar.api.chunks import Chunks, Way, way
from sidecar.api.disconnect import gone
from sidecar.api.errors import envelope
from sidecar.api.render import Render
from sidecar.errors import EngineFault, SidecarError
from sidecar.generation import Delta, Done, Event, Finished

log = logging.getLogger("sidecar.http")

PING_SECONDS = 15.0
PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"


async def frames(
    first: Sequence[Event], batches: AsyncIterator[Sequence[Event]], render: Render, choices: int
) -> AsyncGenerator[bytes, None]:
    """The bytes of each batch, and the one right ending. What came together goes out together."""
    try:
        openings = [render.frame(one) for i in range(choices) if (one := render.opening(i)) is not None]
        if body := b"".join([*openings, _frames(first, render)]):
            yield body
        async for batch in batches:
            if body := _frames(batch, render):
                yield body
        yield DONE
    except SidecarError as error:
        yield error_frame(error)
    except Exception as error:
        log.exception("a stream failed unexpectedly")
        text = f"The stream failed unexpectedly ({type(error).__name__})."
        yield error_frame(EngineFault(text))


def error_frame(error: SidecarError) -> bytes:
    """The error as the last event; the client reads `error` as an object."""
    return b"data: " + msgspec.json.encode(envelope(error)) + b"\n\n"


def _frames(batch: Sequence[Event], render: Render) -> bytes:
    return b"".join([_frame(event, render) for event in batch])


def _frame(event: Event, render: Render) -> bytes:
    if isinstance(event, Delta):
        return render.frame(render.delta(event))
    if isinstance(event, Finished):
        return render.frame(render.finish(event))
    if isinstance(event, Done) and render.options.include_usage:
        return render.usage_frame(event.usage)
    return b""


class Ahead:
    """Writes new text in the step of the engine that brought it, while the stream has nothing else to say.

    It takes nothing before it has a render and chunks to write to, nor while the client does not keep up.
    """

    def __init__(self) -> None:
        self.render: Render | None = None
        self.chunks: Chunks | None = None

    def __call__(self, event: Event) -> bool:
        """Whether it was written. What can not be rendered is left to the stream, which can say so."""
        render, chunks = self.render, self.chunks
        if not isinstance(event, Delta) or render is None or chunks is None or not chunks.open:
            return False
        try:
            body = render.frame(render.delta(event))
        except Exception:
            return False
        chunks.put(body)
        return True


class EventStream(Response):
    """Sends the frames, a comment when it was quiet for long, and stops when the client leaves.

    Owns `batches` from now on: they are closed on every way out.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        batches: AsyncGenerator[Sequence[Event], None],
        body: AsyncGenerator[bytes, None],
        ahead: Ahead,
        headers: Mapping[str, str],
        ping_s: float = PING_SECONDS,
    ) -> None:
        self.status_code = 200
        self.background = None
        self._batches = batches
        self._frames = body
        self._ahead = ahead
        self._ping_s = ping_s
        quiet = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        self.init_headers({**headers, **quiet})
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything; returns when the last byte is handed over or the client has left."""
        async with contextlib.aclosing(self._batches):
            head = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **head})
            found = way(scope, send)
            self._ahead.chunks = found if isinstance(found, Chunks) else None
            async with anyio.create_task_group() as group:
                group.start_soon(self._write, found, group.cancel_scope)
                group.start_soon(self._ping, found)
                group.start_soon(_leave, receive, group.cancel_scope)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, found: Way, scope: anyio.CancelScope) -> None:
        """In a task of its own: to wake this one, under two dozen layers of routing, would cost more."""
        async with contextlib.aclosing(self._frames) as bodies:
            async for body in bodies:
                await found.write(body)
        scope.cancel()

    async def _ping(self, found: Way) -> None:
        """A comment when nothing was written since the last look; a clock for each write would cost more."""
        while True:
            found.wrote = False
            await anyio.sleep(self._ping_s)
            if not found.wrote:
                await found.write(PING)


async def _leave(receive: Receive, scope: anyio.CancelScope) -> None:
    await gone(receive)
    scope.cancel()
