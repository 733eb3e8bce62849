"""`--replay readings.csv`: what the watchdog would have done, line by line, by the same `decide()`.

    time_s,gpu,used_mib[,own_mib][,phase][,boot]

Lines of one time are one look. An empty `used_mib` or `?` is a reading that failed, `lost` a lost
GPU. A restart is taken to have worked: the next look finds a new boot.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from watchdog import smi
from watchdog.decision import Alert, Decision, Restart, accepted, decide
from watchdog.observation import Card, Container, Observation, Reading, Report, Unknown
from watchdog.state import Limits, State

COLUMNS = ("time_s", "gpu", "used_mib", "own_mib", "phase", "boot")
ACCEPTED = "time_s,gpu,used_mib[,own_mib][,phase][,boot]"


class ReplayError(Exception):
    """A line that can not be read; says which, and what is accepted."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the file."""

    time_s: float
    gpu: str
    reading: Reading
    phase: str
    boot: str


@dataclass(frozen=True, slots=True)
class Step:
    """One look and what came of it."""

    time_s: float
    rows: tuple[Row, ...]
    decision: Decision


def parse(lines: Iterable[str]) -> list[Row]:
    """The file's rows; a header may name the columns in another order. Raises ReplayError."""
    found: list[Row] = []
    names: tuple[str, ...] = COLUMNS
    for number, cells in enumerate(csv.reader(lines), 1):
        values = [cell.strip() for cell in cells]
        if not any(values) or values[0].startswith("#"):
            continue
        if "time_s" in values:
            names = _header(number, values)
            continue
        found.append(_row(number, dict(zip(names, values, strict=False)), len(values) - len(names)))
    if any(later.time_s < earlier.time_s for earlier, later in itertools.pairwise(found)):
        raise ReplayError("time_s goes backwards; accepted: lines in the order of their time")
    return found


def replay(limits: Limits, rows: Iterable[Row]) -> Iterator[Step]:
    """Each look with its decision."""
    state, restarts = State(), 0
    for time_s, group in itertools.groupby(rows, key=lambda row: row.time_s):
        same = tuple(group)
        boot = f"{same[0].boot}/{restarts}"
        seen = Observation(
            time_s,
            Container("replayed", "llm-sidecar", "running"),
            {row.gpu: row.reading for row in same},
            Report(boot, same[0].phase or "not recorded", running=1),
        )
        state, decision = decide(limits, state, seen)
        if isinstance(decision, Restart):
            state, restarts = accepted(limits, state, time_s), restarts + 1
        yield Step(time_s, same, decision)


def table(steps: Iterable[Step]) -> Iterator[str]:
    """For a terminal: time, readings, and what would have been done."""
    restarts = 0
    yield f"{'time_s':>8}  {'reading':<34}  what the watchdog does"
    for step in steps:
        restarts += isinstance(step.decision, Restart)
        shown = ", ".join(f"{row.gpu} {_shown(row.reading)}" for row in step.rows)
        yield f"{step.time_s:>8g}  {shown:<34}  {_done(step.decision)}"
    yield f"{restarts} restart{'' if restarts == 1 else 's'}"


def _header(number: int, values: list[str]) -> tuple[str, ...]:
    wrong = [name for name in values if name not in COLUMNS]
    if wrong or not {"time_s", "gpu", "used_mib"} <= set(values):
        raise ReplayError(f"line {number}: columns {','.join(values)!r}; accepted: {ACCEPTED}")
    return tuple(values)


def _row(number: int, values: dict[str, str], surplus: int) -> Row:
    if surplus > 0 or len(values) < 3:
        count = len(values) + max(surplus, 0)
        raise ReplayError(f"line {number}: {count} column{'' if count == 1 else 's'}; accepted: {ACCEPTED}")
    try:
        return Row(
            float(values["time_s"]),
            values["gpu"],
            _reading(values["used_mib"], values.get("own_mib", "")),
            values.get("phase", ""),
            values.get("boot", ""),
        )
    except ValueError:
        shown = ",".join(values.values())[:80]
        raise ReplayError(
            f"line {number}: {shown!r}; accepted: seconds, a name, MiB (or ? or lost)"
        ) from None


def _reading(used: str, own: str) -> Reading:
    if used in ("", "?"):
        return Unknown("not_recorded", "the recorded reading failed")
    if used == "lost":
        return smi.unknown("gpu_lost")
    return Card(_mib(used), own_mib=_mib(own) if own not in ("", "?") else None, witness="the record")


def _mib(text: str) -> float:
    mib = float(text)
    if not 0 <= mib < 2**24:
        raise ValueError(text)
    return mib


def _shown(reading: Reading) -> str:
    if isinstance(reading, Unknown):
        return "lost" if reading.cause == "gpu_lost" else "?"
    own = "" if reading.own_mib is None else f" (own {reading.own_mib:.0f})"
    return f"{reading.used_mib:.0f}{own}"


def _done(decision: Decision) -> str:
    if isinstance(decision, Restart):
        return f"RESTART: {decision.reason}"
    if isinstance(decision, Alert):
        return f"ALERT {decision.kind}: {decision.text}"
    return decision.reason
