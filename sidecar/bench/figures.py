"""What a load was, as values: the report, its JSON form, and two of them side by side. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from sidecar.bench.outcome import Load, Outcome, Wanted
from sidecar.errors import ConfigError
from sidecar.quantiles import quantile

SCHEMA = 1
SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
TIMES = {"first_token_s": "first token", "inter_token_s": "between tokens", "end_to_end_s": "end to end"}
DIGITS = 4
# What two runs of one server differ by anyway.
ALIKE = 0.02
MIXED = "usage, else events"


def report(wanted: Wanted, model: str | None, load: Load) -> dict[str, Any]:
    """The report as `--json` prints it. Times are of answers that are complete; None is not known."""
    good = [outcome for outcome in load.outcomes if outcome.error is None]
    tokens = sum(_tokens(outcome) for outcome in good)
    return {
        "schema": SCHEMA,
        "url": wanted.url,
        "model": model,
        "requests": wanted.requests,
        "concurrency": wanted.concurrency,
        "max_tokens": wanted.max_tokens,
        "seconds": rounded(load.seconds),
        "succeeded": len(good),
        "failed": len(load.outcomes) - len(good),
        "errors": _errors(load.outcomes),
        "tokens": tokens,
        "tokens_counted_by": _counted_by(good),
        "events": sum(len(outcome.events_at_s) for outcome in good),
        "tokens_per_s": rounded(tokens / load.seconds),
        "requests_per_s": rounded(len(good) / load.seconds),
        "first_token_s": spread([o.events_at_s[0] for o in good if o.events_at_s]),
        "inter_token_s": spread([b - a for o in good for a, b in pairwise(o.events_at_s)]),
        "end_to_end_s": spread([o.end_s for o in good]),
        "peak_vram_bytes": load.peak_vram_bytes,
        "client_cpu_s": rounded(load.client_cpu_s),
    }


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Percentiles, mean and the largest; None where nothing was measured."""
    if not values:
        return None
    found = {name: quantile(values, share) for name, share in SHARES.items()}
    found |= {"mean": sum(values) / len(values), "max": max(values)}
    return {name: rounded(value) for name, value in found.items()}


def rounded(value: float) -> float:
    """To four significant digits."""
    return float(f"{value:.{DIGITS}g}")


def _tokens(outcome: Outcome) -> int:
    return len(outcome.events_at_s) if outcome.tokens is None else outcome.tokens


def _counted_by(good: Sequence[Outcome]) -> str | None:
    """What the number of tokens rests on: the server's `usage`, or one for each event of a stream."""
    kinds = {"events" if outcome.tokens is None else "usage" for outcome in good}
    return MIXED if len(kinds) == 2 else next(iter(kinds), None)


def _errors(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """By kind, the most frequent first: how many, and what the first of them said."""
    counts = Counter(outcome.error for outcome in outcomes if outcome.error is not None)
    first = {outcome.error: outcome.message for outcome in reversed(outcomes)}
    return {kind: {"count": count, "first": first[kind]} for kind, count in counts.most_common()}


# --- two reports --------------------------------------------------------------------------------

COMPARED = {
    "tokens/s": (("tokens_per_s",), True),
    **{
        f"{title}, {share}": ((name, share), False)
        for name, title in TIMES.items()
        for share in ("p50", "p95")
    },
    "peak VRAM": (("peak_vram_bytes",), False),
}
SAME_LOAD = ("model", "requests", "concurrency", "max_tokens", "tokens_counted_by")


def checked(found: Any, name: str) -> dict[str, Any]:
    """A report that was read from a file. ConfigError where it is none of ours."""
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or not set(TIMES) <= set(found):
        raise ConfigError(
            f"{name} is no report of this benchmark; accepted: what `llm-sidecar bench --json` prints"
        )
    return found


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each figure that both have: how many times better B is, and the word for it.

    More than 1 is better for B, whichever direction is better.
    """
    rows = {}
    for title, (path, more_is_better) in COMPARED.items():
        of_a, of_b = _at(a, path), _at(b, path)
        if of_a and of_b:
            ratio = of_b / of_a if more_is_better else of_a / of_b
            rows[title] = {"a": of_a, "b": of_b, "ratio": rounded(ratio), "b_is": word(title, ratio)}
    return rows


def word(title: str, ratio: float) -> str:
    """What B is, against A."""
    if abs(ratio - 1) <= ALIKE:
        return "the same"
    better, worse = ("smaller", "larger") if title == "peak VRAM" else ("faster", "slower")
    return f"{ratio:.2f} times {better}" if ratio > 1 else f"{1 / ratio:.2f} times {worse}"


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """In what the two loads were not the same, so that their figures say less."""
    found = [f"{name}: {a.get(name)} and {b.get(name)}" for name in SAME_LOAD if a.get(name) != b.get(name)]
    for name, one in (("A", a), ("B", b)):
        if one["failed"]:
            found.append(f"of {name}'s {one['requests']} requests {one['failed']} failed")
    return found


def _at(one: Mapping[str, Any], path: Sequence[str]) -> float | None:
    value: Any = one
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) else None
