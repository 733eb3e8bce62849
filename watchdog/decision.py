"""Whether to restart: `decide(limits, state, seen) -> (state, decision)`. Pure and total.

Whatever was seen, this answers with a value. It reads no clock, no driver and no daemon, so that a
week of readings is a list. The act is elsewhere (`watchdog.loop`), and so is the reading. A mistake
here ends somebody's requests, hence each rule says why it stands:

    a restart was asked for     wait for a new boot; the kubelet holds in the same way until a new
                                container id, since a second act on top of the first helps nobody
    none, two, or stopped       nothing to restart: a restart call would *start* a stopped container
    new container, new boot     strikes begin at zero, and two intervals of grace
    loading, draining           grace by the sidecar's own word, but not for ever
    three strikes on one card   wanted (seed 000: "exceeds 10.5 GB for 3 consecutive checks")
    the container lost the card wanted, if the sidecar is failing or idle anyway
    the budget                  three in 30 minutes, then alerts only (`watchdog.breaker`)

What a look means for the strikes is `watchdog.strikes`; what is remembered is `watchdog.state`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from watchdog.alerts import RESTART_FAILED_S, span, standing
from watchdog.observation import Container, Observation, Unknown
from watchdog.state import Asked, Identity, Limits, State, Strike
from watchdog.strikes import count, grace_for, has_lost, nothing_to_watch, recognise

# A failed call is tried again after 1, 2, 4 ... 60 s; the next tick is when it happens.
BACKOFF_MAX_S = 60.0
# Container states out of which only a start leads.
STOPPED = frozenset({"created", "exited", "dead"})


@dataclass(frozen=True, slots=True)
class Hold:
    """Do nothing; why."""

    reason: str


Cause = Literal["over_limit", "gpu_lost", "left_stopped"]


@dataclass(frozen=True, slots=True)
class Restart:
    """Restart the container. `cause` is for programs, `readings` are the strikes on `gpu`."""

    cause: Cause
    reason: str
    readings: tuple[Strike, ...] = ()
    gpu: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """Tell somebody. Said once, when it begins; what stands is in `State.alerts`."""

    kind: str
    text: str


Decision = Hold | Restart | Alert
NOTHING = "nothing to watch"


def decide(limits: Limits, state: State, seen: Observation) -> tuple[State, Decision]:
    """The next state, and what is to be done now.

    A `Restart` is a wish: the caller looks again (`second_look`), acts, and says how that went
    (`accepted`, `unsure`, `refused`, `pretended`).
    """
    state = recognise(limits, state, seen)
    state, why = grace_for(limits, state, seen)
    state = count(limits, state, seen, in_grace=bool(why))
    state, wish = _wish(limits, state, seen, why)
    state, wish = _afford(limits, state, seen.now_s, wish)
    return _tell(limits, state, seen, wish)


def second_look(
    limits: Limits, state: State, wish: Restart, seen: Observation
) -> tuple[State, Restart | Hold]:
    """Whether the wish still stands after another reading, taken at once.

    Between the third reading and now, time has passed: earlyoom reads memory again before it kills,
    because "the situation may have changed in the meantime". A look that finds nothing out is not a
    confirmation; the strikes stay, and the next tick decides.
    """
    if wish.cause == "left_stopped":
        stopped = isinstance(seen.target, Container) and seen.target.state in STOPPED
        return state, wish if stopped else Hold("the container is not stopped any more")
    container = seen.running
    if container is None:
        return state, Hold("the second look found no running container")
    if state.identity.is_followed_by(Identity.of(container, seen), container.pids):
        return state, Hold("the second look found a new boot")
    if why := grace_for(limits, state, seen)[1]:
        # Somebody may have told it to stop in the meantime; a restart call would start it again.
        return state, Hold(f"at the second look, {why}")
    if wish.cause == "gpu_lost":
        still = has_lost(seen) and seen.phase in ("failing", "idle")
        return state, wish if still else Hold("the second look found no lost GPU")
    card = seen.cards.get(wish.gpu)
    if card is None:
        return state, Hold("the second look could not read the card")
    if limits.is_over(card):
        return state, wish
    calmer = {gpu: strikes for gpu, strikes in state.strikes.items() if gpu != wish.gpu}
    return replace(state, strikes=calmer), Hold(f"recovered: {card.used_mib:.0f} MiB at the second look")


def accepted(limits: Limits, state: State, at_s: float) -> State:
    """The daemon answered 204. Only now does the budget know: a call that failed has cost nothing."""
    since_s = state.asked.since_s if state.asked else at_s
    spent = state.breaker.spend(limits.allowance, at_s)
    return replace(state, asked=Asked(at_s, True, since_s), breaker=spent, strikes={}, lost=(), failures=0)


def unsure(state: State, at_s: float) -> State:
    """The connection broke or the time ran out: it may have happened. Who runs will tell."""
    since_s = state.asked.since_s if state.asked else at_s
    return replace(_failed(state, at_s), asked=Asked(at_s, False, since_s))


def refused(state: State, at_s: float) -> State:
    """Nothing happened. The strikes stand, the budget is untouched, and the next try waits."""
    return _failed(state, at_s)


def pretended(limits: Limits, state: State, at_s: float) -> State:
    """A dry run goes on as if it had worked, so that its budget and its pace are the real ones."""
    spent = state.breaker.spend(limits.allowance, at_s)
    return replace(state, breaker=spent, strikes={}, lost=(), grace_until_s=at_s + limits.grace_s, asked=None)


def _failed(state: State, at_s: float) -> State:
    wait_s = min(BACKOFF_MAX_S, 2.0**state.failures)
    return replace(state, failures=min(state.failures + 1, 10), retry_at_s=at_s + wait_s)


def _wish(limits: Limits, state: State, seen: Observation, grace: str) -> tuple[State, Restart | Hold]:
    """What the rules want, before anybody asks what may be spent."""
    if state.asked is not None:
        state, pending = _pending(limits, state, state.asked, seen)
        if pending is not None:
            return state, pending
    if seen.running is None:
        return state, Hold(_nobody(seen))
    # Never on a look that found nothing out: the last strike has to be of this very look.
    full = {gpu: s for gpu, s in state.strikes.items() if len(s) >= limits.strikes and _now(s, seen)}
    if full:
        # Several at once: the fullest card tells the story.
        gpu = max(full, key=lambda gpu: full[gpu][-1].used_mib or 0.0)
        return state, Restart("over_limit", _in_words(full[gpu], limits), full[gpu], gpu)
    # A container that lost its card often goes on serving with what it had opened before, so the
    # loss alone ends nobody's request. Failing or idle, there is nothing to lose.
    lost = state.lost
    if len(lost) >= limits.strikes and _now(lost, seen) and seen.phase in ("failing", "idle"):
        reason = f"GPU lost at {len(lost)} looks, and the sidecar is {seen.phase}"
        return state, Restart("gpu_lost", reason, lost[-limits.strikes :])
    return state, Hold(grace or _quiet(limits, state, seen))


def _pending(
    limits: Limits, state: State, asked: Asked, seen: Observation
) -> tuple[State, Restart | Hold | None]:
    """A restart was asked for, and no new boot has been seen yet."""
    now_s, age_s = seen.now_s, seen.now_s - asked.since_s
    waiting = Hold(f"a restart was asked for {span(age_s)} ago; waiting for the new boot")
    if asked.sure or now_s - asked.at_s < limits.settle_s:
        return state, waiting
    if seen.running is not None:
        # Settled, and the old boot still runs: the call had no effect. Back to the rules.
        return replace(state, asked=None), None
    target = seen.target
    stopped = isinstance(target, Container) and target.state in STOPPED
    if stopped and now_s >= state.retry_at_s and age_s < RESTART_FAILED_S:
        # Our own call stopped it and failed to start it. To leave it there would be the outage.
        return state, Restart("left_stopped", "the restart stopped the container and did not start it")
    return state, waiting


def _afford(limits: Limits, state: State, now_s: float, wish: Restart | Hold) -> tuple[State, Restart | Hold]:
    """A wish meets the budget and the pause after a failed call."""
    if isinstance(wish, Hold) or wish.cause == "left_stopped":
        return state, wish
    if state.breaker.left(limits.allowance, now_s) < 1:
        if not state.breaker.paused(now_s):
            state = replace(state, breaker=state.breaker.trip(limits.allowance, now_s))
        left_s = state.breaker.next_s(now_s)
        return state, Hold(f"{wish.reason}; the restart budget is spent, next try in {span(left_s)}")
    if now_s < state.retry_at_s:
        return state, Hold(f"{wish.reason}; the last call failed, next in {span(state.retry_at_s - now_s)}")
    return state, wish


def _tell(limits: Limits, state: State, seen: Observation, wish: Restart | Hold) -> tuple[State, Decision]:
    """An act comes first; then what is new and nobody was told yet, one at a time."""
    alerts = standing(limits, state, seen)
    raised = state.raised & alerts.keys()
    state = replace(state, alerts=alerts, raised=raised)
    if isinstance(wish, Restart):
        return state, wish
    for kind, text in alerts.items():
        if kind not in raised:
            return replace(state, raised=raised | {kind}), Alert(kind, text)
    return state, wish


def _now(strikes: tuple[Strike, ...], seen: Observation) -> bool:
    return strikes[-1].at_s == seen.now_s


def _in_words(strikes: tuple[Strike, ...], limits: Limits) -> str:
    used = ", ".join(f"{strike.used_mib:.0f}" for strike in strikes)
    return f"{used} MiB > {limits.limit_mib:.0f}"


def _nobody(seen: Observation) -> str:
    if isinstance(seen.target, Unknown):
        return f"waiting: {seen.target.text}"
    return f"waiting: {seen.target.name} is {seen.target.state}"


def _quiet(limits: Limits, state: State, seen: Observation) -> str:
    if nothing_to_watch(state, seen):
        return f"{NOTHING}: no GPU here"
    if state.strikes:
        gpu, strikes = max(state.strikes.items(), key=lambda item: len(item[1]))
        if strikes:
            return f"strike {len(strikes)} of {limits.strikes} on {gpu}: {_in_words(strikes, limits)}"
    if state.foreign:
        return "over the limit, but not by the sidecar"
    if not seen.cards:
        return "no reading: " + "; ".join(dict.fromkeys(unknown.text for unknown in seen.unknowns))
    return "under the limit"
