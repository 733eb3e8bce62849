"""A real uvicorn on a real socket, in a thread of its own, over a scripted engine."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry

from sidecar.api import create_app
from sidecar.api.connection import Clocks, http_config
from sidecar.errors import ConfigError
from sidecar.fallback import Provider
from sidecar.gate import Gate
from sidecar.hosted import Hosted
from sidecar.listening import listening
from sidecar.metrics import Metrics
from sidecar.pressure import Budgets
from sidecar.service import Service
from sidecar.shelf import ServedModel, Shelf
from tests.fakes.engine import ScriptedEngine

MODEL = ServedModel("scripted", ("alias",))


class EngineShelf:
    """Opens scripted engines, and keeps them in order."""

    def __init__(self, engine: ScriptedEngine | None) -> None:
        self._engine = engine
        self.opened: list[ScriptedEngine] = []
        self.models: list[str] = []

    def open(self, model: ServedModel) -> ScriptedEngine:
        if model.title == "can not be opened":
            raise ConfigError("there is no llama-server on PATH")
        self.opened.append(self._engine or ScriptedEngine())
        self.models.append(model.id)
        return self.opened[-1]


@dataclass
class Live:
    """A running server, and what is inside it."""

    port: int
    shelf: EngineShelf
    service: Service
    loop: asyncio.AbstractEventLoop

    @property
    def engine(self) -> ScriptedEngine:
        """The one that was opened last."""
        return self.shelf.opened[-1]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def run(self, work: Any) -> Any:
        """Await something on the server's own loop, from the test's thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


@contextmanager
def live_server(
    engine: ScriptedEngine | None = None,
    gate: Gate | None = None,
    models: Sequence[ServedModel] = (MODEL,),
    autoload: bool = False,
    drain_s: float = 30.0,
    clocks: Clocks | None = None,
    budgets: Budgets | None = None,
    providers: Sequence[Provider] = (),
    per_hour: int = 100,
    log_prompts: bool = False,
    **access: Any,
) -> Iterator[Live]:
    """Serve the first model until the block ends. `access` goes to `create_app`.

    `engine` is the one of every model; without it each load gets a new one. `providers` may answer
    where it can not, `per_hour` requests in any hour.
    """
    metrics = Metrics(CollectorRegistry())
    hosted = Hosted(tuple(providers), per_hour, 256, metrics)
    shelf = EngineShelf(engine)
    service = Service(
        Shelf(tuple(models), shelf.open),
        models[0],
        gate or Gate(),
        metrics,
        autoload=autoload,
        drain_s=drain_s,
        budgets=budgets,
        hosted=hosted if providers else None,
        log_prompts=log_prompts,
    )
    app = create_app(service, metrics, **access)
    server = _Server(http_config(app, clocks, close_s=1))
    loop = asyncio.new_event_loop()
    with listening("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=_serve, args=(loop, server, listener))
        thread.start()
        try:
            assert server.up.wait(10)
            yield Live(listener.getsockname()[1], shelf, service, loop)
        finally:
            for opened in shelf.opened:
                opened.release()
            asyncio.run_coroutine_threadsafe(hosted.close(), loop).result(10)
            server.should_exit = True
            thread.join(10)


def _serve(loop: asyncio.AbstractEventLoop, server: _Server, listener: socket.socket) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(server.serve(sockets=[listener]))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
