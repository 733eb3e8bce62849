"""Is it alive, started, ready: every answer from memory, never through the queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sidecar.budget import MIB, Plan
from sidecar.engine import Failed, Loading, Ready, Unloaded
from sidecar.generation import EngineStats
from sidecar.metrics import TEXT_TYPE, Metrics
from sidecar.own_memory import Memory
from sidecar.service import Service

NOT_LOADED = "Model or tokenizer not loaded."
RETRY = {"retry-after": "5"}


def router(service: Service, metrics: Metrics) -> APIRouter:
    """The probes and the figures."""
    routes = APIRouter(tags=["health"])

    async def health() -> Response:
        return _probe(health_body(service), is_ready(service))

    async def livez() -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz() -> Response:
        return _probe(_short(service), is_ready(service))

    async def startupz() -> Response:
        return _probe(_short(service), service.was_ready)

    async def figures(request: Request) -> Response:
        accept = request.headers.get("accept", "")
        if "application/json" in accept and "text/plain" not in accept:
            return JSONResponse(metrics_body(service, metrics))
        return Response(metrics.text(), media_type=TEXT_TYPE)

    served: dict[str, Callable[..., Awaitable[Response]]] = {
        "/health": health,
        "/livez": livez,
        "/readyz": readyz,
        "/startupz": startupz,
        "/metrics": figures,
    }
    for path, route in served.items():
        routes.add_api_route(path, route, methods=["GET"], response_model=None)
        routes.add_api_route(path, route, methods=["HEAD"], include_in_schema=False)
    return routes


def is_ready(service: Service) -> bool:
    """Whether a generation would be taken at once: with autoload, one that first has to load is not."""
    return service.refusal() is None


def health_body(service: Service) -> dict[str, Any]:
    """One body for both seeds: `status` and `model_loaded`, and the memory of the device.

    `plan` is where the memory went when the model was loaded, `memory` how it stands now.
    """
    state, memory = service.state(), service.pressure.now()
    loaded = isinstance(state, Ready)
    ready = is_ready(service)
    body: dict[str, Any] = {
        "status": "ok" if ready else "error",
        "model_loaded": loaded,
        "device": state.device if isinstance(state, Ready) else None,
        "message": "Ready." if ready else _message(service),
        "model": service.model.id,
        **_cuda(service.stats()),
        "phase": service.phase(),
        "progress": _progress(service),
        "plan": None if memory.plan is None else plan_body(memory.plan),
        "memory": memory_body(memory),
    }
    if isinstance(state, Failed):
        body["reason"] = state.reason
    elif isinstance(state, Loading) and state.detail:
        body["reason"] = state.detail
    elif isinstance(state, Unloaded):
        body["reason"] = "unloaded on request; POST /models/load loads it"
    return body


def plan_body(plan: Plan) -> dict[str, Any]:
    """The plan's parts in MiB, what is left for requests, and all of it as a sentence."""
    parts = {field.name: getattr(plan, field.name) for field in fields(plan)}
    parts |= {"margin_mib": plan.margin_mib, "total_mib": plan.total_mib}
    return {
        **{name: mib and round(mib, 1) for name, mib in parts.items() if name.endswith("_mib")},
        "kv_tokens": plan.kv_tokens,
        "full_contexts": plan.full_contexts,
        "sentence": plan.sentence(),
    }


def memory_body(memory: Memory) -> dict[str, Any]:
    """Our own memory against its budget. `source` says who measured it; `plan` is nobody."""
    own = memory.own
    return {
        "budget_mib": memory.budget_mib,
        "used_mib": None if own is None else round(own.mib, 1),
        "source": None if own is None else own.source,
        "rung": memory.rung.word,
        "kv_tokens_reserved": memory.kv_reserved,
        "kv_tokens_total": memory.kv_total,
    }


def metrics_body(service: Service, metrics: Metrics) -> dict[str, Any]:
    """Seed 002's JSON form of /metrics."""
    state, stats, own = service.state(), service.stats(), service.pressure.now().own
    # llama-server has no allocator that would say it: there it is the driver's figure, or the plan's.
    on_card = int(own.mib * MIB) if own is not None and own.on_card else 0
    names = [stats.device_name, *(card.name for card in metrics.cards())]
    return {
        "service": "llm-sidecar",
        "model_loaded": isinstance(state, Ready),
        "model_name": service.model.id,
        "device": state.device if isinstance(state, Ready) else None,
        "gpu_memory_allocated_gb": _gb(stats.memory_allocated_bytes or on_card),
        "gpu_memory_reserved_gb": _gb(stats.memory_reserved_bytes or on_card),
        "gpu_name": next((name for name in names if name), "cpu"),
        "requests_running": service.gate.running,
        "requests_waiting": service.gate.waiting,
    }


def _probe(body: dict[str, Any], passes: bool) -> Response:
    return JSONResponse(body) if passes else JSONResponse(body, 503, headers=RETRY)


def _short(service: Service) -> dict[str, Any]:
    phase = service.phase()
    status = "ready" if is_ready(service) else "starting"
    if service.draining:
        status = "draining"
    elif service.gate.paused() is not None:
        status = "not admitting"
    elif phase in ("failed", "unloading", "unloaded"):
        status = phase
    return {
        "status": status,
        "phase": phase,
        "progress": _progress(service),
        "running": service.gate.running,
    }


def _progress(service: Service) -> float | None:
    state = service.state()
    if isinstance(state, Loading):
        return state.progress
    return 1.0 if isinstance(state, Ready) else None


def _message(service: Service) -> str:
    if service.draining and isinstance(service.state(), Ready):
        return "The service is stopping and takes no new work."
    held = service.gate.paused()
    return held.message if held is not None and isinstance(service.state(), Ready) else NOT_LOADED


def _cuda(stats: EngineStats) -> dict[str, Any]:
    return {
        "cuda_available": stats.cuda_available,
        "cuda_device_count": stats.cuda_device_count,
        "memory_allocated_gb": _gb(stats.memory_allocated_bytes),
        "memory_reserved_gb": _gb(stats.memory_reserved_bytes),
    }


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1024**3:.2f}"
