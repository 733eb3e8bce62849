"""What /docs and /openapi.json say. Bodies are read by `body.py`, so they are described here."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from sidecar import __version__
from sidecar.api.schema import ChatBody, CompletionBody, EmbeddingsBody, GenerateBody, ModelBody
from sidecar.api.shapes import ANSWERS, ERROR, JSON, Shape

BODIES: tuple[type[BaseModel], ...] = (GenerateBody, CompletionBody, ChatBody, EmbeddingsBody, ModelBody)
REF = "#/components/schemas/{model}"
NAMED = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """A route's `openapi_extra`: its body."""
    schema = {"$ref": REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


def describe(app: FastAPI) -> None:
    """Let /openapi.json hold the bodies, the answers, and the one shape of every error."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=__version__, routes=app.routes)
            found.setdefault("components", {}).setdefault("schemas", {}).update(_schemas())
            for path, operations in found["paths"].items():
                for method, operation in operations.items():
                    operation["responses"] = _responses(ANSWERS[method, path])
                    operation |= {"parameters": [NAMED]} if "{name}" in path else {}
            app.openapi_schema = found
        return app.openapi_schema

    # FastAPI documents replacing this method as the way to extend the schema.
    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's own documentation has it


def _responses(answers: dict[str, dict[str, Shape]]) -> dict[str, Any]:
    error = {"schema": {"$ref": REF.format(model="Error")}}
    known = {
        status: {
            "description": "Not ready." if status == "503" else "Done.",
            "content": {media: {"schema": shape} for media, shape in content.items()},
        }
        for status, content in answers.items()
    }
    refused = {"description": "Refused or failed; the error says why.", "content": {JSON: error}}
    return known | {"default": refused}


def _schemas() -> dict[str, Any]:
    found: dict[str, Any] = {"Error": ERROR}
    for model in BODIES:
        schema = model.model_json_schema(ref_template=REF)
        found |= schema.pop("$defs", {})
        found[model.__name__] = schema
    return found
