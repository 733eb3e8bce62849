"""The native dialect: POST /generate, and a first page for people."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from sidecar import __version__
from sidecar.api.answers import Whole, collect
from sidecar.api.body import json_object
from sidecar.api.disconnect import unless_gone
from sidecar.api.docs import body_of
from sidecar.api.fields import only_known
from sidecar.api.hints import base_url, curl
from sidecar.api.render import served_by
from sidecar.api.schema import GenerateBody, validate
from sidecar.engine import Ready
from sidecar.errors import RequestError
from sidecar.generation import GenerationRequest
from sidecar.service import Service

ENDPOINTS = """\
  POST /generate                raw text in, raw text out
  POST /v1/chat/completions     OpenAI chat, also streamed
  POST /v1/completions          OpenAI completions, also streamed
  POST /v1/embeddings           vectors, of models that make them
  GET  /v1/models               what can be served, and what is
  POST /models/load             {"model": "..."}: serve another one; /models/unload frees the card
  GET  /health                  /livez /readyz /startupz: is it alive, ready, started
  GET  /metrics                 Prometheus; JSON when asked for
  GET  /docs                    every field (the page loads its script from a CDN)
"""


def router(service: Service) -> APIRouter:
    """`/generate` and `/`."""
    routes = APIRouter(tags=["native"])

    @routes.post("/generate", response_model=None, openapi_extra=body_of(GenerateBody))
    async def generate(request: Request) -> Response:
        fields = only_known(await json_object(request), GenerateBody)
        generation = generate_request(validate(GenerateBody, fields))
        await unless_gone(request.receive, service.choose("", generation.deadline_s))
        whole = await unless_gone(request.receive, _whole(service, generation))
        return JSONResponse({"generated_text": whole.choices[0].text}, headers=served_by(whole.started))

    @routes.get("/", response_model=None)
    async def index(request: Request) -> Response:
        url = base_url(request.scope)
        command = curl(url, "/generate", request.scope["state"]["needs_key"])
        head = f"LLM Sidecar {__version__} serves {service.model.id} ({_state(service)}).\n"
        return PlainTextResponse(f"{head}\n{ENDPOINTS}\n{command}\n")

    return routes


def generate_request(body: GenerateBody) -> GenerationRequest:
    """The body in the engine's words."""
    return GenerationRequest(
        id=f"gen-{uuid.uuid4().hex}",
        prompt=body.prompt,
        max_tokens=body.max_length,
        sampling=body.sampling(),
        stop=body.stop,
        deadline_s=body.timeout,
    )


async def _whole(service: Service, request: GenerationRequest) -> Whole:
    with _own_names():
        async with contextlib.aclosing(service.batches(request, hosted=True)) as batches:
            return await collect(batches, 1)


@contextlib.contextmanager
def _own_names() -> Iterator[None]:
    """What is wrong with the request is named as its field is called here."""
    try:
        yield
    except RequestError as error:
        if error.param == "max_tokens":
            error.param = "max_length"
        raise


def _state(service: Service) -> str:
    state = service.state()
    if isinstance(state, Ready):
        return f"ready on {state.device}"
    return "not ready; see /health"
