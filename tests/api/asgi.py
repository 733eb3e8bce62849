"""The application without a socket: a request in, status and body out, as fast as that goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from sidecar.api import create_app
from sidecar.engine import Engine
from sidecar.gate import Gate
from sidecar.metrics import Metrics
from sidecar.service import Service
from sidecar.shelf import ServedModel, Shelf
from tests.fakes.engine import ScriptedEngine

EVERYTHING = ServedModel("scripted", ("alias",), tools=True, vision=True, embeddings=True)


@dataclass
class Answer:
    """What came back, whole."""

    status: int = 0
    media: str = ""
    content: bytes = b""
    complete: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode()

    def json(self) -> Any:
        """The body as a value."""
        return json.loads(self.content)


@dataclass
class Application:
    """Asked from outside of its event loop, which runs only meanwhile."""

    app: FastAPI
    service: Service
    runner: asyncio.Runner

    def ask(self, path: str, raw: bytes, method: str = "POST") -> Answer:
        """The answer to a body of JSON."""
        return self.runner.run(self._ask(path, raw, method))

    async def _ask(self, path: str, raw: bytes, method: str) -> Answer:
        answer = Answer()
        body = [{"type": "http.request", "body": raw, "more_body": False}]

        async def receive() -> Any:
            if body:
                return body.pop()
            await answer.complete.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.media = dict(message["headers"])[b"content-type"].decode()
            else:
                answer.content += message["body"]
                if not message.get("more_body"):
                    answer.complete.set()

        await self.app(_scope(path, method), receive, send)
        return answer


@contextmanager
def application(
    models: Sequence[ServedModel] = (EVERYTHING,), open_engine: Callable[[], Engine] = ScriptedEngine
) -> Iterator[Application]:
    """The first model is served; each load opens an engine."""
    metrics = Metrics(CollectorRegistry())
    service = Service(Shelf(tuple(models), lambda _: open_engine()), models[0], Gate(), metrics)
    with asyncio.Runner() as runner:
        runner.run(service.start())
        yield Application(create_app(service, metrics), service, runner)
        runner.run(service.stop())


def _scope(path: str, method: str) -> dict[str, Any]:
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "server": ("localhost", 8000), "client": ("127.0.0.1", 9),
    }  # fmt: skip
