"""What one look means for what is remembered: who runs, whether strikes count, and the counting. Pure.

A failed reading is neither high nor low: it is thrown away, as the kubelet throws away the result
of a probe that could not run. It does not count, and it does not clear what was counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from watchdog.alerts import span
from watchdog.observation import Card, Observation, Unknown
from watchdog.state import Identity, Limits, State, Strike

# Container states in which nothing of ours runs; `restarting` is Docker's own policy at work.
AWAY = frozenset({"created", "exited", "dead", "restarting", "removing"})


def recognise(limits: Limits, state: State, seen: Observation) -> State:
    """Who is there: the same boot, a new one, or nobody."""
    target = seen.target
    if isinstance(target, Unknown):
        # Only a container that is certainly gone ends the streak; an engine that does not answer
        # says nothing about the container.
        return _emptied(state, away=True) if target.cause == "missing" else state
    if target.state in AWAY:
        return _emptied(state, away=True)
    if target.state != "running":
        return _emptied(state, away=state.away)  # paused: the same boot goes on afterwards
    found = Identity.of(target, seen)
    if state.away or state.identity.is_followed_by(found, target.pids):
        return _booted(limits, state, found, seen.now_s)
    return replace(state, identity=state.identity.filled(found))


def _emptied(state: State, *, away: bool) -> State:
    return replace(state, away=away, strikes={}, lost=(), foreign={})


def _booted(limits: Limits, state: State, found: Identity, now_s: float) -> State:
    breaker = state.breaker
    if state.asked is not None and not state.asked.sure:
        # The call whose outcome nobody knew did happen after all, so it has its price.
        breaker = breaker.spend(limits.allowance, state.asked.at_s)
    return replace(
        _emptied(state, away=False),
        identity=found,
        grace_until_s=now_s + limits.grace_s,
        busy_since_s=None,
        asked=None,
        failures=0,
        breaker=breaker,
    )


def grace_for(limits: Limits, state: State, seen: Observation) -> tuple[State, str]:
    """Why strikes do not count now; empty when they do.

    Loading fills the card on its way and may pass the line for a moment; a sidecar that drains is
    about to end anyway, and a restart call could start what somebody just stopped. Both are the
    sidecar's own word, so both end after `loading_grace_s`: stuck is no licence.
    """
    phase = seen.phase
    if phase in ("loading", "draining"):
        since_s = seen.now_s if state.busy_since_s is None else state.busy_since_s
        state = replace(state, busy_since_s=since_s)
        if seen.now_s - since_s < limits.loading_grace_s:
            return state, f"the sidecar is {phase}"
    elif phase != "unknown":
        state = replace(state, busy_since_s=None)
    if seen.now_s < state.grace_until_s:
        return state, f"a new boot has grace for {span(state.grace_until_s - seen.now_s)} more"
    return state, ""


def count(limits: Limits, state: State, seen: Observation, *, in_grace: bool) -> State:
    """Take the readings into account: blind looks, lost looks, strikes, calm."""
    if seen.running is None:
        no_answer = isinstance(seen.target, Unknown) and seen.target.cause not in ("missing", "ambiguous")
        return replace(state, blind={"docker": state.blind.get("docker", 0) + 1} if no_answer else {})
    cards = seen.cards
    state = replace(state, blind=_blind(state, seen), cards_seen=state.cards_seen | cards.keys())
    if has_lost(seen):
        state = replace(state, lost=(*_recent(state.lost, seen.now_s, limits), Strike(seen.now_s)))
    elif cards:
        state = replace(state, lost=())
    if in_grace:
        return replace(state, strikes={}, foreign={})
    return _strike(limits, state, cards, seen.now_s)


def _strike(limits: Limits, state: State, cards: Mapping[str, Card], now_s: float) -> State:
    strikes = {gpu: _recent(old, now_s, limits) for gpu, old in state.strikes.items()}
    foreign = dict(state.foreign)
    for gpu, card in cards.items():
        if limits.is_over(card):
            # The last ones are enough: as many as it takes.
            strikes[gpu] = (*strikes.get(gpu, ()), Strike(now_s, card.used_mib, card.own_mib))
            strikes[gpu] = strikes[gpu][-limits.strikes :]
        else:
            strikes.pop(gpu, None)
        foreign[gpu] = foreign.get(gpu, 0) + 1 if limits.is_foreign(card) else 0
    breaker = state.breaker
    if any(limits.is_over(card) for card in cards.values()):
        breaker = breaker.over()
    elif cards:
        breaker = breaker.calm(limits.allowance, now_s)
    return replace(state, strikes=strikes, foreign={g: n for g, n in foreign.items() if n}, breaker=breaker)


def _recent(strikes: tuple[Strike, ...], now_s: float, limits: Limits) -> tuple[Strike, ...]:
    return tuple(strike for strike in strikes if now_s - strike.at_s <= limits.expiry_s)


def _blind(state: State, seen: Observation) -> dict[str, int]:
    """Looks without a reading, by card. A card that was seen and is gone is blind, never absent."""
    cards = seen.cards
    if nothing_to_watch(state, seen):
        return {}
    expected = state.cards_seen | (set() if isinstance(seen.look, Unknown) else seen.look.keys()) or {"*"}
    return {gpu: state.blind.get(gpu, 0) + 1 for gpu in sorted(expected) if gpu not in cards}


def nothing_to_watch(state: State, seen: Observation) -> bool:
    """No card now, and never one before: a machine without a GPU, which is no fault."""
    return isinstance(seen.look, Unknown) and seen.look.cause == "no_gpu" and not state.cards_seen


def has_lost(seen: Observation) -> bool:
    """Whether the driver is there and the container may not talk to it: "NVML: Unknown Error"."""
    return any(unknown.cause == "gpu_lost" for unknown in seen.unknowns)
