"""Whether a model fits a number of MiB: one sentence, and the smallest change where it does not. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile

from sidecar import budget
from sidecar.budget import FILL, Demand, Plan
from sidecar.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Estimate:
    """One profile in one budget. `plan` None is one that does not fit; `changes` would make it fit."""

    profile: str
    demand: Demand
    budget_mib: float | None
    plan: Plan | None
    changes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What matters."""
        if self.plan is not None:
            requests = _counted(self.plan.full_contexts, "request")
            return f"fits: {requests} of {self.demand.context} tokens ({self.plan.kv_tokens} tokens at once)"
        return f"does not fit: {self.reason}" + (f"; use {' or '.join(self.changes)}" if self.changes else "")

    @property
    def reason(self) -> str:
        """Which part is too much."""
        demand, limit_mib = self.demand, (self.budget_mib or 0.0) * FILL
        of_budget = f"{FILL:.0%} of {self.budget_mib:.0f} MiB are {limit_mib:.0f}"
        if demand.weights_mib > limit_mib:
            return f"weights alone are {demand.weights_mib:.0f} MiB, {of_budget}"
        if demand.fixed_mib > limit_mib:
            *others, last = (name for name, _ in budget.named_parts(demand))
            return f"{', '.join(others)} and {last} are {demand.fixed_mib:.0f} MiB, {of_budget}"
        requests = _counted(demand.needed_pages // demand.request_pages, "request")
        return (
            f"keys and values of {requests} of {demand.context} tokens are "
            f"{demand.needed_pages * demand.page_mib:.0f} MiB, {limit_mib - demand.fixed_mib:.0f} are left"
        )


def estimate(
    profile: str,
    demand: Demand,
    budget_mib: float | None,
    others: Mapping[str, float] | None = None,
    *,
    larger: str = "a budget of",
) -> Estimate:
    """`others` are the profiles that may be offered in its place, and what each of them takes, in MiB.

    `larger` is what would have to be so large that it fits.
    """
    try:
        return Estimate(profile, demand, budget_mib, budget.plan(demand, budget_mib))
    except ConfigError:
        assert budget_mib is not None, "without a budget everything fits"
        smaller = _smaller(profile, demand, budget_mib, others or {})
        most = f"{larger} {budget.needed_budget_mib(demand)} MiB"
        return Estimate(profile, demand, budget_mib, None, (*smaller, most))


def _smaller(profile: str, demand: Demand, budget_mib: float, others: Mapping[str, float]) -> tuple[str, ...]:
    """What fits there, the smallest change first: fewer requests, a shorter context, another profile."""
    found = []
    if (requests := budget.fewer_requests(demand, budget_mib)) is not None:
        found.append(f"{_counted(requests, 'request')} at once")
    elif (context := budget.smaller_context(demand, budget_mib)) is not None:
        found.append(f"a context of {context}")
    if (other := _nearest(profile, budget_mib, others)) is not None:
        found.append(other)
    return tuple(found)


def _nearest(profile: str, budget_mib: float, others: Mapping[str, float]) -> str | None:
    """A profile of the same family (`hermes-...`) that fits: named most alike, then the largest."""
    family = profile.partition("-")[0]
    fitting = {
        name: mib
        for name, mib in others.items()
        if name != profile and name.partition("-")[0] == family and mib <= budget_mib * FILL
    }
    return max(fitting, key=lambda name: (_common_start(name, profile), fitting[name]), default=None)


def _common_start(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
