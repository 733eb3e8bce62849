"""LiteLLM's own hook for choosing deployments, by the rules of rules.py: `callbacks: [hook.rules]`."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any

import aiohttp
from litellm.exceptions import BadRequestError
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy import proxy_server
from rules import HOSTED, HOUR_S, Deployment, at_fault, in_turn, may_leave, ready_first

LOOK_EVERY_S = 0.5
# A server that does not answer from memory for so long can not answer at all.
LOOK_TIMEOUT_S = 2.0
_log = logging.getLogger("door")


class Rules(CustomLogger):
    """Looks at every server's /readyz, which costs it nothing: LiteLLM's own checks are generations."""

    def __init__(self) -> None:
        super().__init__()
        self._unready: set[str] = set()
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._left_at: list[float] = []
        self._turn = 0
        self._per_hour = int(os.environ.get("FALLBACK_PER_HOUR") or 20)

    async def async_filter_deployments(
        self,
        model: str,
        healthy_deployments: list[Deployment],
        messages: Any,  # noqa: ARG002  LiteLLM calls it with all of these
        request_kwargs: dict[str, Any] | None = None,
        parent_otel_span: Any = None,  # noqa: ARG002  the same
    ) -> list[Deployment]:
        """The deployments that may be asked now, of those that LiteLLM does not leave alone.

        Raises BadRequestError, which LiteLLM does not repeat, where nobody may: the client gets the error
        from before.
        """
        told = (request_kwargs or {}).get("litellm_metadata") or (request_kwargs or {}).get("metadata") or {}
        failures = list(told.get("previous_models") or ())
        if at_fault(failures):
            raise BadRequestError("nobody else is asked: the request itself was refused", model, "door")
        if model.startswith(HOSTED):
            self._leave(model, failures)
            return list(healthy_deployments)
        for deployment in healthy_deployments:
            self._look_at(deployment)
        self._turn += 1
        return in_turn(ready_first(healthy_deployments, self._unready), self._turn)

    def _leave(self, model: str, failures: list[dict[str, Any]]) -> None:
        now = time.monotonic()
        self._left_at = [at for at in self._left_at if now - at < HOUR_S]
        if not may_leave(failures, self._left_at, self._per_hour, now):
            raise BadRequestError("not asked: our servers come first, or the hour is spent", model, "door")
        self._left_at.append(now)
        _log.warning("no server of ours could answer: %s is asked (%d this hour)", model, len(self._left_at))

    def _look_at(self, deployment: Deployment) -> None:
        server = deployment["model_info"]
        if server["id"] not in self._looking:
            look = self._look(deployment["model_name"], server["id"], server["readyz"])
            self._looking[server["id"]] = asyncio.create_task(look)

    async def _look(self, group: str, name: str, url: str) -> None:
        timeout = aiohttp.ClientTimeout(total=LOOK_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                running = await _running(session, url)
                if not running:
                    await _counts_nothing(group, name)
                ready = running is not None
                if ready == (name in self._unready):
                    _log.warning("%s is %s", name, "ready" if ready else "not ready")
                (self._unready.discard if ready else self._unready.add)(name)
                await asyncio.sleep(LOOK_EVERY_S)


async def _running(session: aiohttp.ClientSession, url: str) -> int | None:
    """How many requests are at work there; None where it is not ready."""
    try:
        async with session.get(url) as answer:
            return int((await answer.json())["running"]) if answer.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, LookupError, TypeError):
        return None


async def _counts_nothing(group: str, name: str) -> None:
    """Nothing is at work there, so LiteLLM's count of that is 0.

    It is lowered when an answer ends, but not when a stream breaks: who was killed would look busy for an
    hour (LiteLLM 1.106, router_strategy/least_busy.py).
    """
    if (router := proxy_server.llm_router) is not None:
        await router.cache.async_set_cache(f"{group}_request_count:{name}", 0, local_only=True, ttl=HOUR_S)


rules = Rules()
