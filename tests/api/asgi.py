"""The application without a socket: a request in, status and body out, as fast as that goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from sidecar.api import create_app
from sidecar.gate import Gate
from sidecar.generation import Engine
from sidecar.metrics import Metrics
from sidecar.service import Service
from sidecar.shelf import ServedModel, Shelf
from tests.fakes.engine import ScriptedEngine

EVERYTHING = ServedModel("scripted", ("alias",), tools=True, vision=True, embeddings=True)


@dataclass
class Application:
    """Asked from outside of its event loop, which runs only meanwhile."""

    app: FastAPI
    service: Service
    runner: asyncio.Runner
    client: httpx.AsyncClient

    def ask(self, path: str, raw: bytes) -> httpx.Response:
        """The answer to a posted body."""
        headers = {"content-type": "application/json"}
        return self.runner.run(self.client.post(path, content=raw, headers=headers))


@contextmanager
def application(
    models: Sequence[ServedModel] = (EVERYTHING,), open_engine: Callable[[], Engine] = ScriptedEngine
) -> Iterator[Application]:
    """The first model is served; each load opens an engine."""
    service = Service(Shelf(tuple(models), lambda _: open_engine()), models[0], Gate(), metrics())
    app = create_app(service, service.metrics)
    transport = httpx.ASGITransport(app)
    with asyncio.Runner() as runner:
        runner.run(service.start())
        client = httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30)
        yield Application(app, service, runner, client)
        runner.run(service.stop())
        runner.run(client.aclose())


def metrics() -> Metrics:
    """With a registry of its own."""
    return Metrics(CollectorRegistry())
