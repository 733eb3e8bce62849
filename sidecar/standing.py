"""Where the service stands: in one word, and as the reason why nothing is generated now. Pure."""

from __future__ import annotations

from sidecar.engine import Failed, Loading, ServiceState, Unloaded
from sidecar.errors import NotLoaded, NotReady, SidecarError

PHASES = (
    "start", "download", "quantize", "load", "warmup", "restart", "stop",
    "ready", "draining", "unloading", "unloaded", "failed",
)  # fmt: skip


def phase(state: ServiceState, *, draining: bool, leaving: bool) -> str:
    """A phase of loading, ready, draining, unloading, unloaded or failed.

    `draining` is the service, which stops; `leaving` is the model, which another one or none follows.
    """
    if isinstance(state, Loading):
        return state.phase
    if isinstance(state, Unloaded):
        return "unloaded"
    if isinstance(state, Failed):
        return "failed"
    if draining:
        return "draining"
    return "unloading" if leaving else "ready"


def refusal(state: ServiceState, model: str, *, leaving: bool) -> SidecarError | None:
    """Why a generation with the model of that name would be refused; None when it would be tried."""
    if leaving or isinstance(state, Unloaded):
        return NotLoaded.of(model)
    if isinstance(state, Loading):
        share = "" if state.progress is None else f", {state.progress:.0%}"
        return NotReady(f"The model is not ready yet ({state.phase}{share}).", retry_after_s=5)
    if isinstance(state, Failed):
        return NotReady(f"The model could not be loaded: {state.reason}", retry_after_s=30)
    return None
