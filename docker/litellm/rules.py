"""Who may be asked: servers that are ready first, hosted providers last and seldom. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HOSTED = "fallback-"
HOUR_S = 3600.0
# LiteLLM's names for what is wrong with the request, not with the server: 400, 401, 403, 404, 408, 413, 422.
# 429 is not among them: a full queue here is no fault of the request.
OF_THE_REQUEST = (
    "AuthenticationError",
    "BadRequestError",
    "ContentPolicyViolationError",
    "ContextWindowExceededError",
    "NotFoundError",
    "PermissionDeniedError",
    "Timeout",
    "UnprocessableEntityError",
)

Deployment = Mapping[str, Any]


def ready_first(deployments: Sequence[Deployment], unready: set[str]) -> list[Deployment]:
    """Those that are not known to be unready; all of them when there is no other, so that one says why."""
    ready = [deployment for deployment in deployments if deployment["model_info"]["id"] not in unready]
    return ready or list(deployments)


def in_turn(deployments: Sequence[Deployment], turn: int) -> list[Deployment]:
    """The same, beginning with another one each turn.

    LiteLLM takes the first of those with as little to do, and counts a request some time after it chose: what
    comes at once would all go to one server.
    """
    first = turn % max(1, len(deployments))
    return [*deployments[first:], *deployments[:first]]


def at_fault(failures: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the request itself was what was wrong the last time: then nobody else is asked.

    `failures` are LiteLLM's records of what failed before, the last one last. A hosted provider that refuses
    (our key there, its own limits) says nothing about the request: our servers had no quarrel with it.
    """
    ours = [failure for failure in failures if not _is_hosted(failure)]
    return bool(ours) and ours[-1]["exception_type"] in OF_THE_REQUEST


def may_leave(
    failures: Sequence[Mapping[str, Any]], left_at: Sequence[float], per_hour: int, now: float
) -> bool:
    """Whether a request may go to a hosted provider: only after a server of ours, and `per_hour` at most.

    `left_at` is when others went there, in seconds of the same clock as `now`.
    """
    ours = any(not _is_hosted(failure) for failure in failures)
    return ours and sum(now - at < HOUR_S for at in left_at) < per_hour


def _is_hosted(failure: Mapping[str, Any]) -> bool:
    return str(failure.get("model_group")).startswith(HOSTED)
