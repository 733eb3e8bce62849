"""The service as a scrape sees it: from memory, never waiting."""

from __future__ import annotations

import time

from sidecar.engine import Ready
from sidecar.metric_series import Snapshot
from sidecar.service import Service


def snapshot(service: Service) -> Snapshot:
    """One look at everything."""
    state, heard_at = service.state(), service.stats().heard_at
    ready = state if isinstance(state, Ready) else None
    return Snapshot(
        model=service.model.id,
        phase=service.phase(),
        ready=service.refusal() is None,
        running=service.gate.running,
        waiting=service.gate.waiting,
        queue_limit=service.gate.max_queue,
        memory=service.pressure.now(),
        events=service.events.counts,
        slots=ready.capacity.slots if ready else None,
        device=ready.device if ready else None,
        silent_s=None if heard_at is None else time.monotonic() - heard_at,
    )
