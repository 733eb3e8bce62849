"""What /docs and /openapi.json say. Bodies are read by `body.py`, so they are described here."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from sidecar import __version__
from sidecar.api.schema import ChatBody, CompletionBody, GenerateBody

BODIES: tuple[type[BaseModel], ...] = (GenerateBody, CompletionBody, ChatBody)
REF = "#/components/schemas/{model}"


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """A route's `openapi_extra`: its body, and the one shape of every error."""
    schema = {"$ref": REF.format(model=model.__name__)}
    error = {
        "description": "Refused or failed; the error says why.",
        "content": {"application/json": {"schema": {"$ref": REF.format(model="Error")}}},
    }
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        },
        "responses": {"default": error},
    }


def describe(app: FastAPI) -> None:
    """Let /openapi.json hold the bodies."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=__version__, routes=app.routes)
            found.setdefault("components", {}).setdefault("schemas", {}).update(_schemas())
            app.openapi_schema = found
        return app.openapi_schema

    # FastAPI documents replacing this method as the way to extend the schema.
    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's own documentation has it


def _schemas() -> dict[str, Any]:
    found: dict[str, Any] = {"Error": _ERROR}
    for model in BODIES:
        schema = model.model_json_schema(ref_template=REF)
        found |= schema.pop("$defs", {})
        found[model.__name__] = schema
    return found


_TEXT_OR_NULL = {"type": ["string", "null"]}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": _TEXT_OR_NULL,
                "code": _TEXT_OR_NULL,
            },
        }
    },
}
