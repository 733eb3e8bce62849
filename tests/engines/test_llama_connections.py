"""Connections to llama-server, against a peer that is a plain socket: what it has sent or closed is known."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, cast

import pytest
import uvloop

from sidecar.engines import llama_connections
from sidecar.engines.llama_connection import MAX_AHEAD_BYTES, Connection, ConnectionLost, NotConnected
from sidecar.engines.llama_connections import Connections
from sidecar.llama_args import QUESTIONS_AT_ONCE

ASKED = b"GET /x HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
LARGE = ASKED + b"x" * 64 * 1024 * 1024
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\ndata:\r\n8\r\n {1}\n\nda\r\n6\r\nta: 2\n\r\n0\r\n\r\n"
)
EVENTS = b"data: {1}\n\ndata: 2\n"
WHOLE = b"HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nabc"


Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return cast(Run, request.param)


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


def port_of(server: socket.socket) -> int:
    return int(server.getsockname()[1])


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[tuple[Connection, socket.socket]]:
    """A connection, and its other end."""
    with listening() as server:
        connection = await Connection.open(port_of(server), 5.0)
        with server.accept()[0] as peer:
            peer.settimeout(10)
            yield connection, peer
        connection.close()


async def read(connection: Connection) -> bytes:
    body = b""
    while data := await connection.read():
        body += data
    return body


async def received(peer: socket.socket) -> bytes:
    """What comes next at the other end; nothing when the connection was closed, whichever way."""
    with contextlib.suppress(ConnectionResetError):
        return await asyncio.get_running_loop().run_in_executor(None, peer.recv, 64 * 1024)
    return b""


async def begun(connection: Connection, peer: socket.socket, request: bytes = ASKED) -> asyncio.Task[None]:
    """A request whose head, at least, is at the other end."""
    asked = asyncio.create_task(connection.ask(request))
    first = await received(peer)
    assert first.startswith(ASKED)
    assert request.startswith(first)
    return asked


async def answered(connection: Connection, peer: socket.socket, answer: bytes) -> bytes:
    """Ask, and have the other end say `answer`: the body."""
    asked = await begun(connection, peer)
    peer.sendall(answer)
    await asked
    return await read(connection)


def test_an_answer_is_the_same_wherever_it_is_cut(run: Run) -> None:
    async def test() -> None:
        for at in range(1, len(CHUNKED)):
            async with pair() as (connection, peer):
                asked = await begun(connection, peer)
                connection.data_received(CHUNKED[:at])
                connection.data_received(CHUNKED[at:])
                await asked
                assert connection.status == 200
                assert await read(connection) == EVENTS

    run(test())


def test_one_answer_follows_another(run: Run) -> None:
    async def test() -> None:
        async with pair() as (connection, peer):
            for answer, status, body in ((WHOLE, 404, b"abc"), (CHUNKED, 200, EVENTS), (WHOLE, 404, b"abc")):
                assert await answered(connection, peer, answer) == body
                assert connection.status == status
                assert connection.reusable
                assert connection.idle

    run(test())


def test_one_that_says_that_it_ends_is_not_used_again(run: Run) -> None:
    async def test() -> None:
        async with pair() as (connection, peer):
            last = WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            assert await answered(connection, peer, last) == b"abc"
            assert not connection.reusable

    run(test())


@pytest.mark.parametrize(
    "answer",
    [b"", WHOLE[:20], WHOLE[:-1], CHUNKED[:-1], CHUNKED[:-12], b"HTTP/1.1 200 OK\r\n\r\nno length"],
    ids=["nothing", "head", "body", "last chunk", "chunk", "no length"],
)
def test_an_answer_that_is_broken_off_is_never_taken_for_a_whole_one(answer: bytes, run: Run) -> None:
    async def test() -> None:
        async with pair() as (connection, peer):
            asked = await begun(connection, peer)
            peer.sendall(answer)
            peer.close()
            with pytest.raises(ConnectionLost):
                await asked
                await read(connection)
            assert not connection.idle

    run(test())


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        CHUNKED.replace(b"8\r\n {", b"z\r\n {"),
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nwhatever",
    ],
    ids=["another protocol", "status", "length of a chunk", "interim", "upgrade"],
)
def test_what_is_no_answer_ends_it(answer: bytes, run: Run) -> None:
    async def test() -> None:
        async with pair() as (connection, peer):
            with pytest.raises(ConnectionLost):
                await answered(connection, peer, answer)
            assert await received(peer) == b""

    run(test())


def test_a_second_answer_is_nobodys(run: Run) -> None:
    async def test() -> None:
        async with pair() as (connection, peer):
            assert await answered(connection, peer, WHOLE + WHOLE) == b"abc"
            assert not connection.idle

    run(test())


def test_an_answer_that_does_not_wait_for_its_request_is_the_last(run: Run) -> None:
    async def test() -> None:
        async with pair() as (connection, peer):
            asked = await begun(connection, peer, LARGE)
            peer.sendall(WHOLE)
            await asked
            assert await read(connection) == b"abc"
            assert not connection.reusable

    run(test())


def test_nobody_waits_for_the_answer_to_a_request_that_is_not_listened_to(run: Run) -> None:
    async def test() -> None:
        async with pair() as (connection, peer):
            asked = await begun(connection, peer, LARGE)
            peer.shutdown(socket.SHUT_WR)
            with pytest.raises(ConnectionLost):
                await asyncio.wait_for(asked, 10)

    run(test())


@pytest.mark.parametrize("said", [b"", WHOLE], ids=["closed", "unasked"])
def test_one_that_was_closed_or_spoke_is_not_idle_before_the_loop_hears_of_it(said: bytes, run: Run) -> None:
    async def test() -> None:
        async with pair() as (connection, peer):
            assert await answered(connection, peer, WHOLE) == b"abc"
            assert connection.idle
            if said:
                peer.sendall(said)
                assert not connection.idle
                assert await received(peer) == b""
            else:
                peer.close()
            assert not connection.idle

    run(test())


def test_whoever_reads_when_it_is_closed_is_told(run: Run) -> None:
    async def test() -> None:
        async with pair() as (connection, peer):
            asked = await begun(connection, peer)
            connection.close()
            with pytest.raises(ConnectionLost):
                await asked
            with pytest.raises(ConnectionLost):
                await connection.ask(ASKED)

    run(test())


def test_a_reader_who_does_not_keep_up_holds_its_sender_back_and_misses_nothing(run: Run) -> None:
    wanted = 64 * MAX_AHEAD_BYTES

    async def test() -> None:
        async with pair() as (connection, peer):
            asked = await begun(connection, peer)
            peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % wanted)
            await asked
            sent = await stuck(peer, b"x" * wanted)
            assert sent < wanted
            rest = asyncio.get_running_loop().run_in_executor(None, peer.sendall, b"x" * (wanted - sent))
            assert await read(connection) == b"x" * wanted
            await rest

    run(test())


async def stuck(peer: socket.socket, data: bytes) -> int:
    """How much of it is taken until nothing more is, however often the reader's loop has its turn."""
    sent = refusals = 0
    peer.setblocking(False)
    while sent < len(data) and refusals < 1000:
        try:
            sent += peer.send(data[sent : sent + 64 * 1024])
            refusals = 0
        except BlockingIOError:
            refusals += 1
        await asyncio.sleep(0)
    peer.settimeout(10)
    return sent


def test_nobody_there_is_something_else_than_a_broken_connection(run: Run) -> None:
    async def test() -> None:
        with listening() as server:
            port = port_of(server)
        with pytest.raises(NotConnected):
            await Connection.open(port, 5.0)

    run(test())


async def accepted(server: socket.socket) -> socket.socket:
    peer, _ = await asyncio.get_running_loop().run_in_executor(None, server.accept)
    peer.settimeout(10)
    return peer


def test_when_one_is_taken_away_another_stands_ready(run: Run) -> None:
    async def test() -> None:
        with listening() as server:
            connections = Connections(port_of(server))
            async with connections.taken():
                opening = [task for task in asyncio.all_tasks() if task.get_name() == "llama-connection"]
                first, second = await accepted(server), await accepted(server)
                await asyncio.gather(*opening)
                async with connections.kept() as connection:
                    assert await answered(connection, second, WHOLE) == b"abc"
            assert await received(first) == b""
            async with connections.kept() as connection:
                assert await answered(connection, second, WHOLE) == b"abc"
            connections.close()
            assert await received(second) == b""
            first.close(), second.close()

    run(test())


@pytest.mark.parametrize("answer", [b"", WHOLE], ids=["none came", "it came whole"])
def test_one_whose_answer_was_not_read_is_closed(answer: bytes, run: Run) -> None:
    async def test() -> None:
        with listening() as server:
            connections = Connections(port_of(server))
            async with connections.kept() as connection:
                peer = await accepted(server)
                asked = await begun(connection, peer)
                peer.sendall(answer)
                if answer:
                    await asked
                asked.cancel()
            async with connections.kept():
                (await accepted(server)).close()
            assert await received(peer) == b""
            peer.close()

    run(test())


def test_one_that_was_opened_ahead_is_closed_where_enough_are_waiting_by_then(run: Run) -> None:
    async def test() -> None:
        with listening() as server:
            connections = Connections(port_of(server))
            async with contextlib.AsyncExitStack() as questions:
                peers = []
                for _ in range(QUESTIONS_AT_ONCE):
                    connection = await questions.enter_async_context(connections.kept())
                    peers.append(await accepted(server))
                    assert await answered(connection, peers[-1], WHOLE) == b"abc"
                async with connections.taken():
                    await questions.aclose()
                    peers += await accepted(server), await accepted(server)
                    assert await received(peers[-1]) == b""
            connections.close()
            for peer in peers:
                peer.close()

    run(test())


def test_few_are_kept_and_none_for_long(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_connections, "IDLE_SECONDS", 1.0)

    async def test() -> None:
        with listening() as server:
            connections = Connections(port_of(server))
            async with contextlib.AsyncExitStack() as all_at_once:
                peers = []
                for _ in range(QUESTIONS_AT_ONCE + 1):
                    connection = await all_at_once.enter_async_context(connections.kept())
                    peers.append(await accepted(server))
                    assert await answered(connection, peers[-1], WHOLE) == b"abc"
            # The stack is left from its end on: the first is one too many, and closed at once.
            assert await received(peers[0]) == b""
            assert select.select(peers[1:], [], [], 0) == ([], [], [])
            for peer in peers[1:]:
                assert await received(peer) == b""
            for peer in peers:
                peer.close()

    run(test())


def test_nothing_is_opened_after_the_end(run: Run) -> None:
    async def test() -> None:
        with listening() as server:
            connections = Connections(port_of(server))
            opening = asyncio.create_task(begin(connections))
            await asyncio.sleep(0)
            connections.close()
            for late in (opening, begin(connections)):
                with pytest.raises(ConnectionLost):
                    await late

    run(test())


async def begin(connections: Connections) -> None:
    async with connections.own():
        pass
