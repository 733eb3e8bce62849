"""Which container is watched, and which boot of it runs: from the engine's list and `top` alone.

The list is what a hardened proxy lets through; an inspect would show the container's environment,
secrets included. Containers are found by Compose's labels, never by a guess at their name.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from watchdog.engine import Engine, EngineFailure
from watchdog.observation import Container, Target, Unknown

_SERVICE = "com.docker.compose.service"
_PROJECT = "com.docker.compose.project"
_ONE_OFF = "com.docker.compose.oneoff"
_HEALTH = re.compile(r"\((?:health: )?(starting|healthy|unhealthy)\)")
# `Up 3 minutes`, `Up About an hour`, `Up Less than a second`: coarse, but it never shrinks in one boot.
_UPTIME = re.compile(r"Up (?:(Less than) a|About an?|(\d+)) (second|minute|hour|day|week|month|year)s?")
_UNITS = {
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86400.0,
    "week": 604800.0,
    "month": 2592000.0,
    "year": 31536000.0,
}


def find(engine: Engine, service: str, project: str) -> Target:
    """The one container of this service; Unknown when there is none, or more than one, or no engine."""
    try:
        found = [
            _entry(item)
            for item in engine.containers([f"{_SERVICE}={service}", f"{_PROJECT}={project}"])
            if str((item.get("Labels") or {}).get(_ONE_OFF, "")).lower() != "true"
        ]
    except EngineFailure as failure:
        return failure.as_unknown()
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        return Unknown(
            "docker_garbage", f"Docker's list of containers is odd: {type(error).__name__}: {error}"
        )
    wanted = f"of service {service} in project {project}"
    if not found:
        return Unknown("missing", f"no container {wanted}")
    if len(found) > 1:
        return Unknown("ambiguous", f"{len(found)} containers {wanted}: {', '.join(c.name for c in found)}")
    return _with_processes(engine, found[0])


def uptime_s(status: str) -> float | None:
    """The least uptime that the engine's words allow."""
    found = _UPTIME.match(status)
    if found is None:
        return None
    return 0.0 if found[1] else float(found[2] or 1) * _UNITS[found[3]]


def _entry(item: dict[str, Any]) -> Container:
    status = str(item.get("Status") or "")
    health = _HEALTH.search(status)
    return Container(
        id=str(item["Id"]),
        name=str(item["Names"][0]).lstrip("/"),
        state=str(item["State"]),
        health=health[1] if health else "",
        uptime_s=uptime_s(status),
    )


def _with_processes(engine: Engine, container: Container) -> Container:
    """The same with the host's process ids; without them where `top` has no answer.

    By name, because that is what the proxy's rule can hold fixed.
    """
    if container.state != "running":
        return container
    try:
        top = engine.processes(container.name)
        titles = [str(title) for title in top["Titles"]]
        parents = {
            int(row[titles.index("PID")]): int(row[titles.index("PPID")]) for row in top["Processes"] or []
        }
    except (EngineFailure, KeyError, TypeError, ValueError, IndexError):
        return container
    # What was started from outside (the first process, an exec) has a parent outside. Of these the
    # smallest number is nearly always the first; where it is not, one boot too many is seen, and
    # strikes begin at zero.
    roots = [pid for pid, parent in parents.items() if parent not in parents]
    return replace(container, root_pid=min(roots, default=None), pids=frozenset(parents))
