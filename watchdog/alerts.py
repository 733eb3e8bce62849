"""What somebody should know, as sentences that say what to do. Pure."""

from __future__ import annotations

from watchdog.observation import Observation, Unknown
from watchdog.state import Limits, State

# Looks in a row without a reading before the guard calls itself blind.
BLIND_LOOKS = 5
# A restart that leaves no new boot within this time did not work, and somebody has to look.
RESTART_FAILED_S = 600.0

# NVIDIA's own notice about it: container-toolkit issue 48. A restart helps until the next reload.
GPU_LOST = (
    "the container lost its GPU while the card is still there. Known cause: `systemctl daemon-reload` "
    "(or a package update that runs it) makes systemd rewrite the container's device rules without the "
    "card. `docker restart` brings it back until the next reload. For good: name the devices through CDI "
    '(nvidia-ctk cdi generate), or set "exec-opts": ["native.cgroupdriver=cgroupfs"] in '
    "/etc/docker/daemon.json and restart Docker"
)


def standing(limits: Limits, state: State, seen: Observation) -> dict[str, str]:
    """Every alert that holds at this look, the gravest first."""
    found = {
        "restart_failed": _restart_failed(state, seen.now_s),
        "ambiguous_container": _ambiguous(seen),
        "gpu_lost": GPU_LOST if state.lost else "",
        "blind": _blind(state, seen),
        "limit_above_card": _limit_above_card(limits, state, seen),
        "budget_spent": _budget_spent(limits, state, seen.now_s),
        "foreign_vram": _foreign(limits, state, seen),
    }
    return {kind: text for kind, text in found.items() if text}


def span(seconds: float) -> str:
    """`45 s`, `12 min`, `6.0 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _restart_failed(state: State, now_s: float) -> str:
    if state.asked is None or now_s - state.asked.since_s < RESTART_FAILED_S:
        return ""
    return (
        f"a restart was asked for {span(now_s - state.asked.since_s)} ago and no new boot has appeared. "
        "No second one is issued; look at `docker ps` and at the container's log"
    )


def _ambiguous(seen: Observation) -> str:
    if isinstance(seen.target, Unknown) and seen.target.cause == "ambiguous":
        return f"{seen.target.text}; nothing is restarted until one is left"
    return ""


def _blind(state: State, seen: Observation) -> str:
    worst = max(state.blind.values(), default=0)
    if worst < BLIND_LOOKS:
        return ""
    reasons = [seen.target.text] if isinstance(seen.target, Unknown) else []
    reasons += [unknown.text for unknown in seen.unknowns]
    why = "; ".join(dict.fromkeys(reasons)) or "a card is missing from the answer"
    return f"no reading for {worst} looks, so nothing is guarded: {why}"


def _limit_above_card(limits: Limits, state: State, seen: Observation) -> str:
    totals = [card.total_mib for card in seen.cards.values() if card.total_mib is not None]
    if not totals:
        return state.alerts.get("limit_above_card", "")
    if limits.limit_mib < max(totals):
        return ""
    return (
        f"VRAM_BUDGET={limits.limit_mib:.0f}MiB can never be exceeded on a card of {max(totals):.0f} MiB; "
        f"set less than {max(totals):.0f}MiB"
    )


def _budget_spent(limits: Limits, state: State, now_s: float) -> str:
    if not state.breaker.paused(now_s):
        return ""
    return (
        f"{limits.allowance.restarts} restarts did not bring memory under {limits.limit_mib:.0f} MiB. "
        f"Only alerts for {span(limits.allowance.rest_s)}, then one attempt"
    )


def _foreign(limits: Limits, state: State, seen: Observation) -> str:
    cards = seen.cards
    for gpu, looks in state.foreign.items():
        if looks < limits.strikes:
            continue
        card = cards.get(gpu)
        if card is None or card.own_mib is None:
            return state.alerts.get("foreign_vram", "")
        held = card.rest or f"other processes hold {card.used_mib - card.own_mib:.0f} MiB"
        return (
            f"{gpu} has {card.used_mib:.0f} MiB in use, above {limits.limit_mib:.0f}, but the sidecar's own "
            f"{card.own_mib:.0f} MiB ({card.witness}) are not: {held}. A restart would free nothing of that"
        )
    return ""
