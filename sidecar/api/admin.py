"""Loading and unloading models by hand: for an orchestrator that shares the card among services."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sidecar.api.body import json_object
from sidecar.api.docs import body_of
from sidecar.api.fields import only_known
from sidecar.api.schema import ModelBody, validate
from sidecar.engine import Failed, Loading, Ready
from sidecar.service import Service


def router(service: Service) -> APIRouter:
    """`/models/load` and `/models/unload`."""
    routes = APIRouter(prefix="/models", tags=["models"])

    @routes.post("/load", response_model=None, openapi_extra=body_of(ModelBody))
    async def load(request: Request) -> Response:
        await service.load(await _name(request) or service.model.id)
        status = 200 if isinstance(service.state(), Ready) else 202
        return JSONResponse(_standing(service), status)

    @routes.post("/unload", response_model=None, openapi_extra=body_of(ModelBody))
    async def unload(request: Request) -> Response:
        name = await _name(request)
        await service.unload(name or None)
        return JSONResponse(_standing(service) | ({"model": name} if name else {}) | {"status": "unloaded"})

    return routes


async def _name(request: Request) -> str:
    return validate(ModelBody, only_known(await json_object(request), ModelBody)).model


def _standing(service: Service) -> dict[str, Any]:
    """What is held now, in one word and with the reason where it is not."""
    state = service.state()
    body: dict[str, Any] = {"model": service.model.id, "status": service.phase()}
    if isinstance(state, Loading):
        body |= {"status": "loading", "phase": state.phase, "progress": state.progress}
    elif isinstance(state, Failed):
        body["reason"] = state.reason
    return body
