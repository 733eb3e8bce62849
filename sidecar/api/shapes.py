"""The shapes of the answers, for /openapi.json: which fields are always there, and what they hold."""

from __future__ import annotations

from typing import Any

from sidecar.ladder import Rung

Shape = dict[str, Any]

TEXT: Shape = {"type": "string"}
NUMBER: Shape = {"type": "number"}
COUNT: Shape = {"type": "integer", "minimum": 0}
FLAG: Shape = {"type": "boolean"}
TEXT_OR_NULL: Shape = {"type": ["string", "null"]}
NUMBER_OR_NULL: Shape = {"type": ["number", "null"]}
OBJECT_OR_NULL: Shape = {"type": ["object", "null"]}
SHARE_OR_NULL: Shape = {"type": ["number", "null"], "minimum": 0, "maximum": 1}


def record(**fields: Shape) -> Shape:
    """An object with at least these fields."""
    return {"type": "object", "required": list(fields), "properties": fields}


def listed(item: Shape) -> Shape:
    """A list of such things."""
    return {"type": "array", "items": item}


def always(*words: str) -> Shape:
    """One of these words."""
    return {"enum": list(words)}


ERROR = record(error=record(message=TEXT, type=TEXT, param=TEXT_OR_NULL, code=TEXT_OR_NULL))

_USAGE = record(prompt_tokens=COUNT, completion_tokens=COUNT, total_tokens=COUNT)
_REASON = always("stop", "length", "tool_calls")
_MESSAGE = record(role=always("assistant"), content=TEXT_OR_NULL)


def _answer(kind: str, **said: dict[str, Any]) -> dict[str, Any]:
    choice = record(index=COUNT, **said, logprobs=OBJECT_OR_NULL, finish_reason=_REASON)
    return record(
        id=TEXT, object=always(kind), created=COUNT, model=TEXT, choices=listed(choice), usage=_USAGE
    )


_CHAT = _answer("chat.completion", message=_MESSAGE)
_COMPLETION = _answer("text_completion", text=TEXT)
_VECTOR = {"anyOf": [listed(NUMBER), TEXT]}
_EMBEDDINGS = record(
    object=always("list"),
    model=TEXT,
    data=listed(record(object=always("embedding"), index=COUNT, embedding=_VECTOR)),
    usage=record(prompt_tokens=COUNT, total_tokens=COUNT),
)
_CARD = record(id=TEXT, object=always("model"), created=COUNT, owned_by=TEXT, active=FLAG, status=TEXT)
_STANDING = record(model=TEXT, status=TEXT)
_HEALTH = record(
    status=always("ok", "error"),
    model_loaded=FLAG,
    device=TEXT_OR_NULL,
    message=TEXT,
    model=TEXT,
    cuda_available=FLAG,
    cuda_device_count=COUNT,
    memory_allocated_gb=TEXT,
    memory_reserved_gb=TEXT,
    phase=TEXT,
    progress=SHARE_OR_NULL,
    plan=OBJECT_OR_NULL,
    memory=record(
        budget_mib=NUMBER_OR_NULL,
        used_mib=NUMBER_OR_NULL,
        source=TEXT_OR_NULL,
        rung=always(*(rung.word for rung in Rung)),
        kv_tokens_reserved=NUMBER_OR_NULL,
        kv_tokens_total=NUMBER_OR_NULL,
    ),
)
_EVENT = record(id=COUNT, time=TEXT, boot_id=TEXT, kind=TEXT, by=TEXT, text=TEXT)
_PROBE = record(status=TEXT, phase=TEXT, progress=SHARE_OR_NULL, running=COUNT)
_FIGURES = record(service=TEXT, model_loaded=FLAG, requests_running=COUNT, requests_waiting=COUNT)

JSON = "application/json"
EVENTS = "text/event-stream"
PLAIN = "text/plain"

# For each route and status: what comes, by its media type. Whatever is not here is an ERROR.
ANSWERS: dict[tuple[str, str], dict[str, dict[str, Shape]]] = {
    ("post", "/generate"): {"200": {JSON: record(generated_text=TEXT)}},
    ("post", "/v1/chat/completions"): {"200": {JSON: _CHAT, EVENTS: TEXT}},
    ("post", "/v1/completions"): {"200": {JSON: _COMPLETION, EVENTS: TEXT}},
    ("post", "/v1/embeddings"): {"200": {JSON: _EMBEDDINGS}},
    ("get", "/v1/models"): {"200": {JSON: record(object=always("list"), data=listed(_CARD))}},
    ("get", "/v1/models/{name}"): {"200": {JSON: _CARD}},
    ("post", "/models/load"): {"200": {JSON: _STANDING}, "202": {JSON: _STANDING}},
    ("post", "/models/unload"): {"200": {JSON: _STANDING}},
    ("get", "/health"): {"200": {JSON: _HEALTH}, "503": {JSON: _HEALTH}},
    ("get", "/livez"): {"200": {JSON: record(status=always("ok"))}},
    ("get", "/readyz"): {"200": {JSON: _PROBE}, "503": {JSON: _PROBE}},
    ("get", "/startupz"): {"200": {JSON: _PROBE}, "503": {JSON: _PROBE}},
    ("get", "/events"): {"200": {JSON: record(boot_id=TEXT, events=listed(_EVENT))}},
    ("get", "/metrics"): {"200": {PLAIN: TEXT, JSON: _FIGURES}},
    ("get", "/"): {"200": {PLAIN: TEXT}},
}
