"""Look, ask, decide, look again, act, record; once per interval, for ever.

`tick` is the whole story of one look and holds no clock of its own: a test gives it a list of
observations and a virtual clock. `run` is the only place that sleeps. Nothing that happens in a tick
ends the loop; a fault of this program is logged, counted, and the next tick begins with the state
from before it, because a dead guard guards nothing and says so to nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from threading import Event

from watchdog.asks import Ask, before_restart, climb
from watchdog.decision import (
    Alert,
    Decision,
    Hold,
    Restart,
    accepted,
    decide,
    pretended,
    refused,
    second_look,
    unsure,
)
from watchdog.journal import Journal
from watchdog.observation import Container, Observation, Report
from watchdog.report import Answer
from watchdog.restarter import Done, Outcome, Refused, Unsure
from watchdog.state import Limits, State
from watchdog.tally import Tally

log = logging.getLogger("watchdog")
# How closely the new boot is followed: the answer is "ready again after 41 s", not "within 60".
FOLLOW_S = 1.0


def _nobody(boot_id: str, ask: Ask) -> Answer | None:  # noqa: ARG001 - the shape of `Parts.ask`
    return None


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything around the decision. `clock` counts the time of a suspended machine too.

    `ask` asks the boot of that id for something; without an answer nothing has changed.
    """

    limits: Limits
    clock: Callable[[], float]
    observe: Callable[[], Observation]
    restart: Callable[[Container], Outcome]
    report: Callable[[], Report | None]
    journal: Journal
    tally: Tally
    stop: Event
    dry_run: bool = False
    reads_locally: bool = False
    ask: Callable[[str, Ask], Answer | None] = _nobody


def tick(parts: Parts, state: State) -> State:
    """One look, and what follows from it."""
    seen = parts.observe()
    after, decision = decide(parts.limits, _climb(parts, state, seen), seen)
    if isinstance(decision, Restart):
        after, seen = _act(parts, after, decision)
    # Once somebody was restarted, that must be remembered, even if it can not be written down.
    _guarded(lambda: _note(parts, state, after, seen, decision), parts)
    return after


def run(parts: Parts, state: State | None = None) -> State:
    """Tick until `stop` is set. Ticks keep to their grid; one that took too long skips, never bunches."""
    state, next_s = state or State(), parts.clock()
    while not parts.stop.is_set():
        state = _survive(parts, state)
        if _view_is_stale(state, parts):
            return state
        next_s = max(next_s + parts.limits.interval_s, parts.clock())
        _rest(parts, next_s)
    return state


def _climb(parts: Parts, state: State, seen: Observation) -> State:
    """Ask for what the rung calls for; whatever becomes of it, the look goes on."""
    stood, asks = climb(parts.limits, state.stood, seen)
    for ask in asks:
        _guarded(partial(_ask, parts, stood.boot_id, ask), parts)
    return replace(state, stood=stood)


def _ask(parts: Parts, boot_id: str, ask: Ask) -> None:
    if parts.dry_run:
        answer = None
        said = "nothing is asked in a dry run"
    else:
        answer = parts.ask(boot_id, ask)
        said = answer.said if answer else "no answer"
    if ask.step:
        parts.journal.step(ask, parts.limits.limit_mib, said, answer)


def _act(parts: Parts, state: State, wish: Restart) -> tuple[State, Observation]:
    """Look again, and restart only if it is still so."""
    seen = parts.observe()
    state, still = second_look(parts.limits, state, wish, seen)
    if isinstance(still, Hold):
        parts.journal.record("called off", f"{wish.reason}; {still.reason}")
        return state, seen
    # Told to stop in the meantime: whoever comes after us will see what we saw.
    if parts.stop.is_set() or not isinstance(seen.target, Container):
        return state, seen
    if parts.dry_run:
        parts.journal.restart("would restart", wish, dry_run=True)
        parts.tally.acted("pretended", wish.cause)
        return pretended(parts.limits, state, seen.now_s), seen
    return _restart(parts, state, wish, seen, seen.target), seen


def _restart(parts: Parts, state: State, wish: Restart, seen: Observation, target: Container) -> State:
    """The call, and what is remembered of its outcome."""
    own_mib = wish.readings[-1].own_mib if wish.readings else None
    if (drain := before_restart(parts.limits, seen, own_mib)) and seen.report:
        # The call's SIGTERM drains; who arrives while Docker makes up its mind is told so already.
        _guarded(partial(_ask, parts, seen.report.boot_id, drain), parts)
    asked_s = parts.clock()
    log.warning("restarting %s: %s", target.name, wish.reason, extra={"event": "restarting"})
    parts.tally.restarting = True
    try:
        outcome = parts.restart(target)
    except Exception as error:  # our own fault, and it may have come after the act
        _fault(parts, "the restart call failed in this program")
        outcome = Unsure(f"{type(error).__name__}: {error}")
    finally:
        parts.tally.restarting = False
    _guarded(lambda: _record(parts, wish, outcome, seen, asked_s), parts)
    if isinstance(outcome, Done):
        return accepted(parts.limits, state, asked_s)
    return refused(state, asked_s) if isinstance(outcome, Refused) else unsure(state, asked_s)


def _record(parts: Parts, wish: Restart, outcome: Outcome, seen: Observation, asked_s: float) -> None:
    boot_id = seen.report.boot_id if seen.report else None
    if isinstance(outcome, Done):
        parts.tally.acted("done", wish.cause)
        parts.journal.follow(parts.journal.restart("restarted", wish), asked_s, boot_id)
        return
    kind = "refused" if isinstance(outcome, Refused) else "unsure"
    parts.tally.acted(kind, wish.cause)
    entry = parts.journal.restart(f"restart {kind}", wish, error=outcome.text)
    if kind == "unsure" and boot_id is not None:
        # Perhaps it did happen; only another boot id can tell.
        parts.journal.follow(entry, asked_s, boot_id)


def _note(parts: Parts, before: State, after: State, seen: Observation, decision: Decision) -> None:
    parts.tally.saw(seen, after, decision)
    if isinstance(decision, Alert):
        parts.journal.record("alert", decision.text, logging.WARNING, alert=decision.kind)
    elif isinstance(decision, Hold):
        parts.journal.quietly(decision.reason)
    for kind in before.alerts.keys() - after.alerts.keys():
        parts.journal.record("alert over", kind, alert=kind)


def _guarded(work: Callable[[], None], parts: Parts) -> None:
    try:
        work()
    except Exception:  # our own fault, whatever it is
        _fault(parts, "a look could not be written down")


def _survive(parts: Parts, state: State) -> State:
    try:
        return tick(parts, state)
    except Exception:  # our own fault, whatever it is; the guard goes on
        _fault(parts, "a look failed")
        return state


def _fault(parts: Parts, what: str) -> None:
    log.exception(what, extra={"event": "error"})
    parts.tally.errors += 1


def _rest(parts: Parts, until_s: float) -> None:
    """Sleep until the next tick; while a restart is being followed, listen for its end."""
    while not parts.stop.is_set() and (left_s := until_s - parts.clock()) > 0:
        if not parts.journal.following:
            parts.stop.wait(left_s)
        else:
            parts.journal.heard(parts.report(), parts.clock())
            parts.stop.wait(min(FOLLOW_S, left_s))


def _view_is_stale(state: State, parts: Parts) -> bool:
    """Whether this very container lost its view of the card.

    Only with the local driver: then it is our container that systemd cut off, and Docker gives it a
    new view when it starts it again. Without a card seen before there is nothing to win by that.
    """
    if not parts.reads_locally or "blind" not in state.alerts or not state.cards_seen:
        return False
    return bool(state.lost)
