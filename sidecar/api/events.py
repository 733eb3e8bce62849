"""What happened to the memory and to the engine, as a list."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sidecar.errors import BadRequest
from sidecar.events import KEPT
from sidecar.service import Service

ID_MAX = 2**53


def router(service: Service) -> APIRouter:
    """`/events`."""
    routes = APIRouter(tags=["events"])
    parameters = [_parameter("since", 0, ID_MAX), _parameter("limit", 1, KEPT)]

    @routes.get("/events", response_model=None, openapi_extra={"parameters": parameters})
    async def events(request: Request) -> Response:
        since, limit = _whole(request, "since", 0, 0, ID_MAX), _whole(request, "limit", KEPT, 1, KEPT)
        found = service.events.since(since, limit)
        return JSONResponse({"boot_id": service.events.boot_id, "events": found})

    return routes


def _parameter(name: str, low: int, high: int) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": low, "maximum": high}
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _whole(request: Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high:
        return int(text)
    shown = text if len(text) <= 40 else text[:40] + "..."
    raise BadRequest(f"`{name}` is {shown!r}; a whole number from {low} to {high} is accepted.", param=name)
