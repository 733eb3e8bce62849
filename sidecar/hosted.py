"""Somebody else's answer, where our own engine has none: Together AI, then OpenAI (see `sidecar.fallback`).

Each is asked once, in this order, within the request's own deadline. Only the first token of one decides:
behind it nobody else is asked, and what breaks then ends the answer with an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from sidecar import fallback
from sidecar.engines.hosted_client import HostedClient, NoAnswer
from sidecar.errors import DeadlineExceeded, ProviderBroke, SidecarError
from sidecar.fallback import Allowance, Outcome, Provider, Rests
from sidecar.generation import Done, Event, GenerationRequest, Usage
from sidecar.metrics import Metrics
from sidecar.providers import providers
from sidecar.settings import Settings

log = logging.getLogger("sidecar.fallback")

Put = Callable[[Event], None]


@dataclass(slots=True)
class _Attempt:
    """One provider asked once."""

    provider: Provider
    outcome: Outcome = "cancelled"
    begun: bool = False
    usage: Usage | None = None

    def __str__(self) -> str:
        return f"{self.provider.name}:{self.outcome}"


class Hosted:
    """A `StandIn`: the providers, and what they may still be asked.

    `max_tokens` counts where a request has none.
    """

    def __init__(
        self, providers: tuple[Provider, ...], per_hour: int, max_tokens: int, metrics: Metrics
    ) -> None:
        self._providers = providers
        self._max_tokens = max_tokens
        self._metrics = metrics
        self._allowance = Allowance(per_hour)
        self._rests = Rests()
        self._client = HostedClient()

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def answer(
        self, request: GenerationRequest, cause: SidecarError, deadline: float, put: Put
    ) -> None:
        """See `StandIn.answer`."""
        tried: list[_Attempt] = []
        loop = asyncio.get_running_loop()
        willing = self._willing(request, cause, loop.time())
        try:
            for index, provider in enumerate(willing):
                tried.append(_Attempt(provider))
                first_by = fallback.first_token_by(loop.time(), deadline, len(willing) - index)
                await self._ask(tried[-1], request, first_by, deadline, put)
                if tried[-1].outcome == "success":
                    return
        finally:
            self._tell(request, cause, tried)
        raise cause

    def _willing(self, request: GenerationRequest, cause: SidecarError, now: float) -> list[Provider]:
        """Whom to ask, in order. One of the hour's requests is spent if there is anybody."""
        if not fallback.allowed(cause):
            return []
        able = [provider for provider in self._providers if fallback.obstacle(request, provider) is None]
        willing = self._rests.willing(able, now)
        if willing and not self._allowance.take(now):
            for provider in willing:
                self._metrics.fell_back(provider.name, "capped")
            log.warning("fallback: FALLBACK_PER_HOUR is spent", extra=_facts(request, cause))
            return []
        return willing

    async def _ask(
        self, attempt: _Attempt, request: GenerationRequest, first_by: float, deadline: float, put: Put
    ) -> None:
        try:
            await self._passed_on(attempt, request, first_by, deadline, put)
            attempt.outcome = "success"
        except NoAnswer as error:
            attempt.outcome = "broken" if attempt.begun else error.outcome
            self._rests.ask(attempt.provider, asyncio.get_running_loop().time(), error.rest_s)
            if attempt.begun:
                raise ProviderBroke.of(attempt.provider.name) from None
        except TimeoutError:
            attempt.outcome = "timeout"
            if attempt.begun:
                raise DeadlineExceeded.of(request.deadline_s) from None
        finally:
            self._metrics.fell_back(attempt.provider.name, attempt.outcome)

    async def _passed_on(
        self, attempt: _Attempt, request: GenerationRequest, first_by: float, deadline: float, put: Put
    ) -> None:
        events = self._client.events(attempt.provider, request, self._max_tokens)
        async with asyncio.timeout_at(first_by) as limit, contextlib.aclosing(events):
            async for event in events:
                if not attempt.begun:
                    attempt.begun = True
                    limit.reschedule(deadline)
                if isinstance(event, Done):
                    attempt.usage = event.usage
                put(event)

    def _tell(self, request: GenerationRequest, cause: SidecarError, tried: list[_Attempt]) -> None:
        """One line for each request that left this machine: who answered, and why it was not us."""
        if not tried:
            return
        last, facts = tried[-1], _facts(request, cause)
        facts["tried"] = " ".join(map(str, tried))
        if last.begun:
            facts |= {"served_by": last.provider.name, "model": last.provider.model}
        if last.usage is not None:
            facts["prompt_tokens"] = last.usage.prompt_tokens
            facts["completion_tokens"] = last.usage.completion_tokens
        level = logging.INFO if last.outcome == "success" else logging.WARNING
        log.log(level, "fallback", extra=facts)


def _facts(request: GenerationRequest, cause: SidecarError) -> dict[str, object]:
    return {"generation": request.id, "why": cause.code}


def open_hosted(settings: Settings, max_tokens: int, metrics: Metrics) -> Hosted | None:
    """The fallback as it is set; None without FALLBACK=1. Raises ConfigError."""
    found = providers(settings)
    return Hosted(found, settings.fallback_per_hour, max_tokens, metrics) if found else None
