"""Whose memory it is. Pure.

The suspect is not the witness: the driver's figures for the sidecar's own processes come first. The
sidecar's word counts only while it is fresh, and only one boot can give it: a report that survived a
restart would clear the new boot with the old boot's number. Where nobody can tell, the whole card
counts, as in seed 000.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from watchdog.observation import Card, Look, Report, Unknown
from watchdog.smi import Process

# A sidecar measures every few seconds; at short intervals two of them would be too strict.
FRESH_MIN_S = 15.0


def fresh_s(interval_s: float) -> float:
    """How old the sidecar's own figure may be."""
    return max(2 * interval_s, FRESH_MIN_S)


def attributed(
    look: Look,
    processes: Sequence[Process] | Unknown,
    pids: frozenset[int],
    report: Report | None,
    max_age_s: float,
) -> Look:
    """The same look, with the sidecar's share on each card where it can be told."""
    if isinstance(look, Unknown):
        return look
    seen = () if isinstance(processes, Unknown) else processes
    said_mib = _said(report, max_age_s)
    found = dict(look)
    for gpu, card in look.items():
        if not isinstance(card, Card):
            continue
        own_mib = _driver(seen, pids, gpu)
        if own_mib is not None:
            found[gpu] = replace(card, own_mib=own_mib, witness="the driver", rest=_rest(seen, pids, gpu))
        elif said_mib is not None:
            # On several cards this is the sum, and so no less than the share of any: a sum inside
            # the limit clears each card, and one above it leaves each to the card's own figure.
            found[gpu] = replace(
                card, own_mib=said_mib, witness="its own report", rest=_rest(seen, pids, gpu)
            )
    return found


def _driver(seen: Iterable[Process], pids: frozenset[int], gpu: str) -> float | None:
    """The sum over the sidecar's processes on this card.

    Within a container the driver's list is often empty or numbered otherwise. So it is believed
    only when it names at least one process of ours, on whatever card, and has a figure for each.
    """
    ours = [process for process in seen if process.pid in pids]
    here = [process.used_mib for process in ours if process.gpu == gpu]
    if not ours or None in here:
        return None
    return sum(mib for mib in here if mib is not None)


def _said(report: Report | None, max_age_s: float) -> float | None:
    if report is None or report.own_mib is None or report.age_s is None:
        return None
    return report.own_mib if 0 <= report.age_s <= max_age_s else None


def _rest(seen: Iterable[Process], pids: frozenset[int], gpu: str) -> str:
    """Who else is there, the largest first; empty when the driver names nobody."""
    others = sorted(
        (p for p in seen if p.gpu == gpu and p.pid not in pids), key=lambda p: p.used_mib or 0, reverse=True
    )
    named = [
        f"process {p.pid} holds {'an unknown amount' if p.used_mib is None else f'{p.used_mib:.0f} MiB'}"
        for p in others[:4]
    ]
    return ", ".join(named)
