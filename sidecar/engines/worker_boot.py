"""One life of the worker: its process, its socket, and the requests that it knows."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence

import anyio
import msgspec

from sidecar import errors
from sidecar.engines.child import Child
from sidecar.errors import BadRequest, EngineCrashed, SidecarError
from sidecar.generation import GenerationRequest
from sidecar.worker import messages
from sidecar.worker.environment import environment_with
from sidecar.worker.messages import Cancel, FromWorker, Output, Priced, Released, Step, ToWorker

log = logging.getLogger(__name__)

# A cancelled request is let go of at the end of the step that is under way.
RELEASE_S = 30.0

Item = Priced | Output | Released | SidecarError


class Boot:
    """See the module."""

    def __init__(self, child: Child, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.child = child
        self._reader = reader
        self._writer = writer
        self._requests: dict[str, asyncio.Queue[Item]] = {}
        self.heard_at = time.monotonic()

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str]) -> Boot:
        """Start `command --fd N`, N being the other end of our socket pair."""
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            child = await Child.start(
                (*command, "--fd", str(fd)), pass_fds=[fd], env=environment_with(environment)
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return cls(child, reader, writer)

    @property
    def busy(self) -> bool:
        """Whether an answer is owed to anybody."""
        return bool(self._requests)

    def send(self, message: ToWorker) -> None:
        """Queue one frame; a closed socket is noticed by the reader."""
        self._write(messages.frame(message))

    def _write(self, frame: bytes) -> None:
        # uvloop raises where asyncio's own loop only drops what is written after the end.
        if not self._writer.transport.is_closing():
            self._writer.write(frame)

    def open(self, request: GenerationRequest) -> asyncio.Queue[Item]:
        """Make the request known and have it prepared; what is said of it comes in the queue.

        Raises BadRequest for a number that the wire can not carry: a client's schema may hold any.
        """
        try:
            frame = messages.frame(messages.prepare(request))
        except OverflowError:
            raise BadRequest(
                "A whole number in a JSON schema is beyond 64 bits; write it with an exponent: 1e30."
            ) from None
        inbox: asyncio.Queue[Item] = asyncio.Queue()
        self._requests[request.id] = inbox
        self._write(frame)
        return inbox

    def cancel(self, request: GenerationRequest) -> bool:
        """Whether the worker still held something of the request, and was told to let go."""
        held = self.knows(request.id)
        if held:
            self.send(Cancel(request.id))
        return held

    def knows(self, id: str) -> bool:
        """Whether the worker still holds something of the request."""
        return id in self._requests

    async def frames(self) -> AsyncIterator[FromWorker]:
        """What the worker says, until it closes the socket or stops making sense."""
        cut = messages.Frames()
        try:
            while data := await self._reader.read(1 << 16):
                for body in cut.feed(data):
                    yield messages.decode_from_worker(body)
        except ConnectionError:
            return
        except (ValueError, msgspec.MsgspecError) as error:
            log.error("the worker broke its protocol: %s", error)
            self.child.kill()

    def deliver(self, message: Priced | Step | Released) -> None:
        """Hand each part to the request that it is about; the unknown has been given up before."""
        if isinstance(message, Step):
            for output in message.outputs:
                if (inbox := self._requests.get(output.id)) is not None:
                    inbox.put_nowait(output)
        elif isinstance(message, Released):
            if (inbox := self._requests.pop(message.id, None)) is not None:
                inbox.put_nowait(message)
        elif (inbox := self._requests.get(message.id)) is not None:
            inbox.put_nowait(message)

    def fail(self, error: SidecarError) -> None:
        """Nothing more will come: tell everybody."""
        self._writer.close()
        for inbox in self._requests.values():
            inbox.put_nowait(error)
        self._requests.clear()


def as_error(item: Item) -> SidecarError:
    """What an item means that is not what was waited for."""
    if isinstance(item, SidecarError):
        return item
    if isinstance(item, Released) and item.code is not None:
        return errors.revive(item.code, item.message, item.param)
    return EngineCrashed(f"The worker broke its protocol with {type(item).__name__}.")


async def released(inbox: asyncio.Queue[Item]) -> None:
    """Wait for the last word on a cancelled request, even while being cancelled oneself."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(RELEASE_S):
        while not isinstance(await inbox.get(), Released | SidecarError):
            pass
