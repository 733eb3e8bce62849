"""What a soak found, and whether all is well. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.errors import EngineCrashed, EngineFault, EngineStalled, OutOfMemory
from sidecar.quantiles import quantile
from sidecar.soak.slope import Slope, Verdict, growth, verdict, warmed_up

# What is nobody's wish and no refusal: each is a request that was taken and not answered.
FAILED = frozenset({"lost", "internal_error", EngineCrashed.code, EngineFault.code, EngineStalled.code})

WARM_UP_REQUESTS = 500

# Seconds, requests done, MiB.
Sample = tuple[float, int, float]


@dataclass(slots=True)
class Tally:
    """What is counted while it goes on. Memory in MiB; a figure that can not be seen stays empty.

    `ran_s` and `waited_s` are the API process': without a processor it can not answer, however fast it is.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)
    tokens: int = 0
    unfinished: int = 0
    engine: list[Sample] = field(default_factory=list)
    sidecar: list[Sample] = field(default_factory=list)
    card: list[Sample] = field(default_factory=list)
    engine_peak_mib: float | None = None
    sidecar_peak_mib: float | None = None
    kv_shares: list[float] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    ran_s: float | None = None
    waited_s: float | None = None

    @property
    def requests(self) -> int:
        """How many have come to an end."""
        return self.outcomes.total()

    def over(self, kind: str, message: str) -> None:
        """One request came to an end; of each kind the first message is kept."""
        self.outcomes[kind] += 1
        if message:
            self.messages.setdefault(kind, message[:300])


@dataclass(frozen=True, slots=True)
class Sizes:
    """What was to be kept: MiB and tokens; None is not known or not set."""

    device: str = "cpu"
    budget_mib: float | None = None
    plan_mib: float | None = None
    context: int = 0
    slots: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The end of it. `failures` is empty when all is well."""

    sizes: Sizes
    seconds: float
    tally: Tally
    health_ms: Sequence[float]
    health_failed: int
    slopes: dict[str, Slope | None]
    verdict: Verdict

    @property
    def high_water_mib(self) -> float | None:
        """Of the memory that the budget is about: the card's, or the engine's resident memory."""
        if self.sizes.device != "cpu":
            return _most(self.tally.card)
        return self.tally.engine_peak_mib

    @property
    def within_budget(self) -> bool | None:
        """None: no budget is set, or nothing was seen of the memory."""
        if self.high_water_mib is None or self.sizes.budget_mib is None:
            return None
        return self.high_water_mib <= self.sizes.budget_mib

    @property
    def plan_error_percent(self) -> float | None:
        """By how much the plan was exceeded; below zero it was not used up."""
        if self.high_water_mib is None or not self.sizes.plan_mib:
            return None
        return (self.high_water_mib / self.sizes.plan_mib - 1) * 100

    @property
    def failed_for_memory(self) -> int:
        """Requests that were taken and ended because there was no memory for them."""
        return self.tally.outcomes[OutOfMemory.code]

    @property
    def failures(self) -> tuple[str, ...]:
        """What is not well, one line each."""
        found = []
        if self.within_budget is False:
            found.append(f"{self.high_water_mib:.0f} MiB are above the budget of {self.sizes.budget_mib:.0f}")
        if self.verdict == "LEAK":
            found.append("the memory grows with the requests")
        for kind in sorted(FAILED | {OutOfMemory.code}):
            if count := self.tally.outcomes[kind]:
                found.append(f"{count} ended as {kind}: {self.tally.messages.get(kind, '')}".rstrip(": "))
        if not self.tally.outcomes["success"]:
            found.append("no request was answered whole")
        return tuple(found)


def finished(
    sizes: Sizes,
    seconds: float,
    tally: Tally,
    probes_ms: Sequence[float | None],
    warm_up: int = WARM_UP_REQUESTS,
) -> Report:
    """The report; a probe without an answer is None. A leak of any of the processes is one."""
    series = {"engine": tally.engine, "sidecar": tally.sidecar}
    if sizes.device != "cpu":
        series["card"] = tally.card
    seen = {name: warmed_up(samples, warm_up) for name, samples in series.items() if samples}
    slopes = {name: growth(points) for name, points in seen.items()}
    verdicts = [verdict(points, warm_up) for points in seen.values()] or [verdict([], warm_up)]
    worst = max(verdicts, key=("NO LEAK", "TOO SHORT TO SAY", "LEAK").index)
    heard = [one for one in probes_ms if one is not None]
    return Report(sizes, seconds, tally, heard, len(probes_ms) - len(heard), slopes, worst)


def as_json(report: Report) -> dict[str, Any]:
    """Every figure, for programs; null is not known. Memory in MiB, times in ms, shares from 0 to 1."""
    tally, sizes = report.tally, report.sizes
    return {
        "well": not report.failures,
        "failures": list(report.failures),
        "seconds": round(report.seconds, 1),
        "requests": tally.requests,
        "outcomes": dict(sorted(tally.outcomes.items())),
        "messages": tally.messages,
        "failed_for_memory": report.failed_for_memory,
        "unfinished": tally.unfinished,
        "tokens": tally.tokens,
        "tokens_per_s": round(tally.tokens / max(report.seconds, 1e-9), 1),
        "device": sizes.device,
        "context": sizes.context,
        "slots": sizes.slots,
        "budget_mib": _rounded(sizes.budget_mib),
        "plan_mib": _rounded(sizes.plan_mib),
        "high_water_mib": _rounded(report.high_water_mib),
        "engine_high_water_mib": _rounded(tally.engine_peak_mib),
        "sidecar_high_water_mib": _rounded(tally.sidecar_peak_mib),
        "card_high_water_mib": _rounded(_most(tally.card)),
        "never_above_budget": report.within_budget,
        "plan_error_percent": _rounded(report.plan_error_percent),
        "kv_reserved_share": _rounded(_mean(tally.kv_shares), 3),
        "running_mean": _rounded(_mean(tally.running)),
        "waiting_mean": _rounded(_mean(tally.waiting)),
        "verdict": report.verdict,
        "mib_per_1000_requests": {name: _slope(slope) for name, slope in report.slopes.items()},
        "health_ms": health(report),
        "sidecar_ran_s": _rounded(tally.ran_s, 2),
        "sidecar_waited_for_processor_s": _rounded(tally.waited_s, 2),
    }


def health(report: Report) -> dict[str, float | int | None]:
    """The probes: how many, how many without an answer of 200, milliseconds."""
    return {
        "asked": len(report.health_ms) + report.health_failed,
        "failed": report.health_failed,
        "p50": _rounded(_share(report.health_ms, 0.5)),
        "p99": _rounded(_share(report.health_ms, 0.99)),
        "max": _rounded(_share(report.health_ms, 1.0)),
    }


def _share(values: Sequence[float], share: float) -> float | None:
    """None of none: what was not seen is not known."""
    return quantile(values, share) if values else None


def _slope(slope: Slope | None) -> dict[str, float | int] | None:
    if slope is None:
        return None
    grown = slope.times(1000)
    return {
        "slope": round(grown.middle, 4),
        "low": round(grown.low, 4),
        "high": round(grown.high, 4),
        "points": grown.points,
    }


def _most(samples: Sequence[Sample]) -> float | None:
    return max((mib for _, _, mib in samples), default=None)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)
