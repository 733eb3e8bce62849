"""The OpenAI dialect: models, completions, chat completions."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sidecar.api import images, remote_images
from sidecar.api.answers import Batches, Whole, collect, together
from sidecar.api.body import MAX_BYTES, json_object
from sidecar.api.disconnect import unless_gone
from sidecar.api.docs import body_of
from sidecar.api.fields import split_known
from sidecar.api.messages import conversation
from sidecar.api.prompts import MAX_INPUTS, prompts
from sidecar.api.render import (
    ChatRender,
    Options,
    Render,
    TextRender,
    base64_of,
    embeddings_body,
    served_by,
)
from sidecar.api.response_format import response_format
from sidecar.api.schema import ChatBody, CompletionBody, EmbeddingsBody, OpenAIBody, validate
from sidecar.api.sse import Ahead, EventStream, frames
from sidecar.api.tools import tools
from sidecar.engine import Ready, Unloaded
from sidecar.errors import BadRequest, Unsupported
from sidecar.generation import Event, GenerationRequest, Started
from sidecar.service import Service
from sidecar.shelf import ServedModel


def router(service: Service, ping_s: float) -> APIRouter:
    """The routes under /v1."""
    routes = APIRouter(prefix="/v1", tags=["openai"])

    @routes.get("/models", response_model=None)
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_card(service, model) for model in service.shelf.models]}

    @routes.get("/models/{name:path}", response_model=None)
    async def model(request: Request) -> dict[str, Any]:
        return _card(service, service.shelf.find(request.path_params["name"]))

    @routes.post("/chat/completions", response_model=None, openapi_extra=body_of(ChatBody))
    async def chat(request: Request) -> Response:
        # Which one it is stands in the body: what the largest may need is read.
        size = images.MAX_BODY_BYTES if any(model.vision for model in service.within_reach) else MAX_BYTES
        fields, headers = split_known(await json_object(request, max_bytes=size), ChatBody)
        body = validate(ChatBody, fields)
        model = await unless_gone(request.receive, service.choose(body.model, body.timeout))
        if model.vision and model.image_hosts:
            asking = remote_images.fetched(body.messages, model.image_hosts)
            body = body.model_copy(update={"messages": await unless_gone(request.receive, asking)})
        generation = await images.decoded(chat_request(body, model))
        asked = body.logprobs
        render = ChatRender(generation.id, model.id, _options(body, asked))
        return await _respond(request, service, model, [generation], render, headers, ping_s)

    @routes.post("/completions", response_model=None, openapi_extra=body_of(CompletionBody))
    async def completions(request: Request) -> Response:
        fields, headers = split_known(await json_object(request), CompletionBody)
        body = validate(CompletionBody, fields)
        generations = completion_requests(body)
        model = await unless_gone(request.receive, service.choose(body.model, body.timeout))
        asked = body.logprobs is not None
        render = TextRender(generations[0].id, model.id, _options(body, asked))
        return await _respond(request, service, model, generations, render, headers, ping_s)

    @routes.post("/embeddings", response_model=None, openapi_extra=body_of(EmbeddingsBody))
    async def embeddings(request: Request) -> Response:
        fields, headers = split_known(await json_object(request), EmbeddingsBody)
        body = validate(EmbeddingsBody, fields)
        inputs = prompts(body.input, "input", MAX_INPUTS)
        if body.dimensions is not None:
            raise Unsupported("`dimensions` is not supported here.", param="dimensions")
        model = await unless_gone(request.receive, service.choose(body.model, body.timeout))
        if not model.embeddings:
            raise Unsupported(
                f"The model `{model.id}` makes no embeddings (supports_embeddings).", param="model"
            )
        found = await unless_gone(request.receive, service.embed(inputs, body.timeout, model))
        encode = base64_of if body.encoding_format == "base64" else list
        return JSONResponse(embeddings_body(found, model.id, encode), headers=dict(headers))

    return routes


def chat_request(body: ChatBody, model: ServedModel) -> GenerationRequest:
    """The body in the engine's words.

    Raises BadRequest where fields disagree, Unsupported for what this model can not do.
    """
    _check_stream_options(body)
    offered = tools(body.tools, body.tool_choice, body.parallel_tool_calls, supported=model.tools)
    limits = {body.max_tokens, body.max_completion_tokens} - {None}
    if len(limits) > 1:
        raise BadRequest(
            "`max_tokens` and `max_completion_tokens` differ; send one of them.",
            param="max_completion_tokens",
        )
    if body.top_logprobs is not None and not body.logprobs:
        raise BadRequest("`top_logprobs` needs `logprobs`: true.", param="top_logprobs")
    return GenerationRequest(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        prompt=conversation(body.messages, vision=model.vision, tools=model.tools),
        max_tokens=limits.pop() if limits else None,
        sampling=body.sampling(),
        stop=body.stop,
        n=body.n,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        deadline_s=body.timeout,
        tools=offered,
        format=response_format(body.response_format, offered),
    )


def completion_requests(body: CompletionBody) -> list[GenerationRequest]:
    """One request for each prompt."""
    _check_stream_options(body)
    if body.echo:
        raise Unsupported("`echo` is not supported here.", param="echo")
    if body.suffix:
        raise Unsupported("`suffix` is not supported here.", param="suffix")
    if body.best_of is not None and body.best_of != body.n:
        raise Unsupported("`best_of` other than `n` is not supported here.", param="best_of")
    common = uuid.uuid4().hex
    return [
        GenerationRequest(
            id=f"cmpl-{common}" if index == 0 else f"cmpl-{common}-{index}",
            prompt=prompt,
            max_tokens=body.max_tokens,
            sampling=body.sampling(),
            stop=body.stop,
            n=body.n,
            logprobs=body.logprobs,
            deadline_s=body.timeout,
        )
        for index, prompt in enumerate(prompts(body.prompt))
    ]


async def _respond(
    request: Request,
    service: Service,
    model: ServedModel,
    generations: Sequence[GenerationRequest],
    render: Render,
    headers: Mapping[str, str],
    ping_s: float,
) -> Response:
    ahead = Ahead()
    if len(generations) > 1:  # of several prompts some would be answered here and some elsewhere
        batches = together(service, model, generations)
    else:
        taker = ahead if render.options.stream else None
        batches = service.batches(generations[0], model, hosted=True, ahead=taker)
    choices = sum(generation.n for generation in generations)
    if not render.options.stream:
        whole = await unless_gone(request.receive, _gathered(batches, choices))
        body = render.by(whole.started).whole(whole.choices, whole.usage)
        return JSONResponse(body, headers={**headers, **served_by(whole.started)})
    try:
        first = await unless_gone(request.receive, _first(batches))
    except BaseException:
        await batches.aclose()
        raise
    (started,) = [event for event in first if isinstance(event, Started)]
    ahead.render = render.by(started)
    events = frames(first, batches, ahead.render, choices)
    return EventStream(batches, events, ahead, {**headers, **served_by(started)}, ping_s)


async def _gathered(batches: Batches, choices: int) -> Whole:
    async with contextlib.aclosing(batches):
        return await collect(batches, choices)


async def _first(batches: Batches) -> list[Event]:
    # `Started`: queue, load and context errors still get a status of their own.
    return await anext(batches)


def _options(body: OpenAIBody, with_logprobs: bool) -> Options:
    return Options(body.stream, with_logprobs, body.include_usage)


def _check_stream_options(body: OpenAIBody) -> None:
    if body.stream_options is not None and not body.stream:
        raise BadRequest("`stream_options` needs `stream`: true.", param="stream_options")


def _card(service: Service, model: ServedModel) -> dict[str, Any]:
    """One model of the registry; `active` is the one that answers now."""
    active = model == service.model
    state = service.state() if active else Unloaded()
    return {
        "id": model.id,
        "object": "model",
        "created": service.created,
        "owned_by": "llm-sidecar",
        "max_model_len": state.capacity.context if isinstance(state, Ready) else None,
        "active": active and not isinstance(state, Unloaded),
        "status": service.phase() if active else "unloaded",
        "profile": model.aliases[0] if model.aliases else None,
        "title": model.title,
    }
