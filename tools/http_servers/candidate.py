"""One candidate as a process: `python -m tools.http_servers.candidate NAME PORT [guarded]`.

The sidecar's own application over a scripted engine; nothing but the server differs. `guarded` has the
key and the host names that cases of the corpus ask for.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import uvicorn
import uvloop
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from sidecar.api import create_app
from sidecar.api.connection import http_config
from sidecar.gate import Gate
from sidecar.generation import Capacity, Delta, Done, Event, Finished, GenerationRequest, Started, Usage
from sidecar.metrics import Metrics
from sidecar.service import Service
from sidecar.shelf import only
from tests.fakes.engine import ScriptedEngine
from tests.fakes.live import MODEL

Serve = Callable[[FastAPI, int], Awaitable[None]]

KEY, HOSTS = "sk-test", ("127.0.0.1", "localhost")
WIDE = Capacity(slots=64, pages=65536, page_tokens=16, context=16384)
PACED = "[paced]"
EVENTS_PER_S = 8000


class PacedEngine(ScriptedEngine):
    """A prompt that begins with `[paced]` and a number brings events at an even pace, whatever they cost.

    The number says how many such streams there are: together they bring at most 8,000 events a second.
    """

    async def _play(self, request: GenerationRequest, script: Any) -> AsyncIterator[Event]:
        if not (isinstance(request.prompt, str) and request.prompt.startswith(PACED)):
            async for event in super()._play(request, script):
                yield event
            return
        every_s = max(0.001, int(request.prompt.removeprefix(PACED)) / EVENTS_PER_S)
        count = request.max_tokens or 1
        yield Started(1)
        for _ in range(count):
            await asyncio.sleep(every_s)
            yield Delta(0, " word")
        yield Finished(0, "length")
        yield Done(Usage(1, count))


async def _ours(app: FastAPI, port: int) -> None:
    await _uvicorn(http_config(app), port)


def _stock(parser: Any) -> Serve:
    async def serve(app: FastAPI, port: int) -> None:
        plain: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False}
        await _uvicorn(uvicorn.Config(app, http=parser, ws="none", lifespan="off", **plain), port)

    return serve


async def _uvicorn(config: uvicorn.Config, port: int) -> None:
    config.host, config.port = "127.0.0.1", port
    await uvicorn.Server(config).serve()


async def _hypercorn(app: FastAPI, port: int) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.include_server_header = False
    await serve(app, config)


async def _granian(app: FastAPI, port: int) -> None:
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    settings = HTTP1Settings(header_read_timeout=10_000, max_buffer_size=40 * 1024)
    server = Server(
        app,
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        http1_settings=settings,
        log_enabled=False,
    )
    await server.serve()


CANDIDATES: Mapping[str, Serve] = {
    "uvicorn, h11, as it is used": _ours,
    "uvicorn, h11": _stock("h11"),
    "uvicorn, httptools": _stock("httptools"),
    "hypercorn": _hypercorn,
    "granian": _granian,
}


def app(guarded: bool) -> FastAPI:
    """The application; its engine is ready at once."""
    metrics = Metrics(CollectorRegistry())
    service = Service(only(MODEL, PacedEngine(WIDE)), MODEL, Gate(), metrics)
    return create_app(
        service, metrics, api_key=KEY if guarded else None, allowed_hosts=HOSTS if guarded else ()
    )


def main(name: str, port: str, *rest: str) -> None:
    """Serve until killed."""

    async def serve() -> None:
        await CANDIDATES[name](app("guarded" in rest), int(port))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main(*sys.argv[1:])
