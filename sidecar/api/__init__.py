"""The HTTP side: routes, and what stands before them. The only package that knows FastAPI."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from sidecar import __version__
from sidecar.api import admin, docs, events, health, native, openai
from sidecar.api.auth import HostCheck, KeyCheck
from sidecar.api.errors import Refusal, answer
from sidecar.api.front import Front
from sidecar.api.hints import corrected_curl
from sidecar.api.sse import PING_SECONDS
from sidecar.errors import SidecarError
from sidecar.metrics import Metrics
from sidecar.scrape import snapshot
from sidecar.service import Service


def create_app(
    service: Service,
    metrics: Metrics,
    *,
    api_key: str | None = None,
    reached_at: str = "127.0.0.1",
    allowed_hosts: Iterable[str] = (),
    ping_s: float = PING_SECONDS,
) -> FastAPI:
    """The application.

    `reached_at` is the address under which people reach it; a stream that is quiet for `ping_s`
    sends a comment, so that nothing between takes it for dead.
    """
    metrics.watch(partial(snapshot, service))
    app = FastAPI(title="LLM Sidecar", version=__version__, redoc_url=None, redirect_slashes=False)
    for router in (
        native.router(service),
        openai.router(service, ping_s),
        admin.router(service),
        health.router(service, metrics),
        events.router(service),
    ):
        app.include_router(router)
    app.add_middleware(Front, keys=KeyCheck(api_key), hosts=HostCheck(reached_at, allowed_hosts))
    app.add_exception_handler(SidecarError, _failure)
    app.add_exception_handler(Refusal, _failure)
    app.add_exception_handler(HTTPException, _no_route)
    docs.describe(app)
    return app


async def _failure(_: Request, error: Exception) -> Response:
    assert isinstance(error, SidecarError | Refusal)
    return answer(error)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    command = corrected_curl(request.scope)
    if error.status_code == 405:
        text = f"This route takes another method. For example: {command}"
        return answer(Refusal(405, "method_not_allowed", text, headers=error.headers))
    text = f"There is no such route; GET / lists them all. For example: {command}"
    return answer(Refusal(404, "not_found", text, type="not_found_error"))
