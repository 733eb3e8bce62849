"""Whether a hosted provider may answer in our engine's place, and which. Pure.

Only before the first token, and only where our own side could not answer: the model is not ready, memory
is too close to its budget, a turn did not come in time, or the engine failed. What is answered 4xx is the
client's to mend or to wait for (a full queue says when to come back), a model that was unloaded was let go
of on purpose, and a service that stops would cut the answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from sidecar.errors import EngineError, MemoryPressure, NotReady, QueueTimeout, SidecarError
from sidecar.generation import GenerationRequest, Sampling

Outcome = Literal[
    "success", "unreachable", "timeout", "unauthorized", "rate_limited", "refused", "server_error",
    "bad_answer", "broken", "cancelled", "capped",
]  # fmt: skip
"""How one attempt ended. `broken` broke off what had begun; `capped` was not made: FALLBACK_PER_HOUR."""

OUTCOMES: frozenset[str] = frozenset(get_args(Outcome))
PROVIDERS = ("together", "openai")
"""In the order in which they are asked."""
HOUR_S = 3600.0
# A provider that asks for a longer pause is asked again all the same: it may have been its mistake.
LONGEST_REST_S = 300.0


@dataclass(frozen=True, slots=True)
class Provider:
    """One hosted service with OpenAI's interface.

    `more_samplers` is whether it knows top_k, min_p and repetition_penalty.
    """

    name: str
    base_url: str
    model: str
    api_key: str = field(repr=False)
    more_samplers: bool = False


def allowed(error: SidecarError) -> bool:
    """Whether our own error is one that somebody else may answer instead of."""
    return isinstance(error, NotReady | MemoryPressure | QueueTimeout | EngineError)


def obstacle(request: GenerationRequest, provider: Provider) -> str | None:
    """What of the request would mean something else to the provider, or nothing; None: it can be sent."""
    if request.token_ids or request.sampling.logit_bias:
        return "token ids are of our own tokenizer"
    if request.logprobs is not None:
        return "logprobs are of our own tokens"
    if request.n > 1:
        return "several choices"
    if request.format is not None:
        return "the form of the answer is held to here alone"
    if _more_samplers(request.sampling) and not provider.more_samplers:
        return "top_k, min_p or repetition_penalty"
    return None


def _more_samplers(sampling: Sampling) -> bool:
    return (sampling.top_k, sampling.min_p, sampling.repetition_penalty) != (0, 0.0, 1.0)


def first_token_by(now: float, deadline: float, left: int) -> float:
    """When the next of `left` providers must have begun: they share what is left of the request's time."""
    return now + max(0.0, deadline - now) / left


def rest_s(retry_after: str | None) -> float:
    """How long a provider wants to be left alone, out of its Retry-After header; 0 where it does not say."""
    if retry_after is None or not (retry_after.isascii() and retry_after.isdigit()):
        return 0.0
    return min(float(retry_after[:9]), LONGEST_REST_S)


class Allowance:
    """So many requests in any hour; times are seconds of one clock."""

    def __init__(self, per_hour: int) -> None:
        self._per_hour = per_hour
        self._taken: deque[float] = deque()

    def take(self, now: float) -> bool:
        """Whether one more may go; if so it is counted."""
        while self._taken and now - self._taken[0] >= HOUR_S:
            self._taken.popleft()
        if len(self._taken) >= self._per_hour:
            return False
        self._taken.append(now)
        return True


class Rests:
    """Which providers asked to be left alone, and until when."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def ask(self, provider: Provider, now: float, seconds: float) -> None:
        """It wants `seconds` of rest."""
        self._until[provider.name] = now + seconds

    def willing(self, providers: Sequence[Provider], now: float) -> list[Provider]:
        """Those that may be asked, in the same order."""
        return [provider for provider in providers if self._until.get(provider.name, now) <= now]
