"""What the sidecar is asked for as its memory climbs, and when it falls. Pure.

Up to the limit nobody is restarted: the sidecar is asked to take care of itself, for a time after
which it forgets that. Above the limit the strikes decide (`watchdog.strikes`), and these asks go on.

Only the sidecar's own memory climbs: by the driver's word where it tells it apart, else by the
sidecar's own. Where nobody can tell, nothing is asked, and the strikes alone guard the card.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from watchdog.attribution import fresh_s
from watchdog.observation import Observation
from watchdog.rungs import LINES, Rung, Stood, rung
from watchdog.state import Limits

# How many intervals an ask holds without another: two may fail to come.
LEASE_INTERVALS = 3
_HELD = {Rung.WARN: "warn", Rung.STOP_ADMITTING: "stop_admitting", Rung.OVER: "stop_admitting"}


@dataclass(frozen=True, slots=True)
class Ask:
    """One thing to ask for. `step` is what it is called in the journal; empty when it only goes on."""

    what: str
    own_mib: float
    lease_s: float
    step: str = ""


def climb(limits: Limits, stood: Stood, seen: Observation) -> tuple[Stood, tuple[Ask, ...]]:
    """The next rung, and what the sidecar is asked now.

    A look that finds nothing out moves nothing; what was asked for before then runs out by itself.
    """
    report = seen.report
    if report is None:
        return stood, ()
    if report.boot_id != stood.boot_id:
        stood = Stood(report.boot_id)
    own = own_mib(limits, seen)
    if own is None or seen.phase not in ("ready", "idle"):
        return stood, ()
    now = rung(own, limits.limit_mib, stood.rung)
    wanted = _wanted(stood.rung, now)
    lease_s = LEASE_INTERVALS * limits.interval_s
    asks = tuple(Ask(what, own, lease_s, step) for what, step in wanted if what in report.takes)
    return replace(stood, rung=now), asks


def before_restart(limits: Limits, seen: Observation, own: float | None) -> Ask | None:
    """What is asked right before a restart: that nobody new is let in. None where it is not understood."""
    if seen.report is None or "drain" not in seen.report.takes:
        return None
    return Ask("drain", own or 0.0, LEASE_INTERVALS * limits.interval_s, "drain")


def own_mib(limits: Limits, seen: Observation) -> float | None:
    """The sidecar's own memory on one card, by whoever can tell it."""
    cards = seen.cards.values()
    told = [card.own_mib for card in cards if card.own_mib is not None and card.witness == "the driver"]
    if told:
        return max(told)
    report = seen.report
    # The report is about all cards together, and a limit is about each.
    if report is None or report.own_mib is None or report.age_s is None or len(cards) > 1:
        return None
    return report.own_mib if report.age_s <= fresh_s(limits.interval_s) else None


def _wanted(before: Rung, now: Rung) -> list[tuple[str, str]]:
    """What to ask, and its name in the journal: up, every rung on the way; down, where it stands now."""
    if now is Rung.STEADY:
        return [("resume", "recover")] if before else []
    if now < before:
        return [(_HELD[now], "recover" if _HELD[now] != _HELD[before] else "")]
    passed = dict.fromkeys(_HELD[step] for step in LINES if before < step <= now)
    passed.pop(_HELD.get(before, ""), None)
    wanted = [(what, what) for what in passed] or [(_HELD[now], "")]
    if before < now and now >= Rung.STOP_ADMITTING:
        wanted.append(("trim", "trim"))
    return wanted
