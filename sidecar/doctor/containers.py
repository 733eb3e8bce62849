"""What the Docker engine says, and whether a container keeps its card."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

from sidecar.doctor import driver
from sidecar.doctor.facts import Docker, Unknown, docker_seen

INFO = ("docker", "info", "--format", "{{json .}}")
INFO_SECONDS = 10


def docker_is_here() -> bool:
    """Whether there is a docker command."""
    return shutil.which("docker") is not None


def ask_docker() -> Docker | Unknown | None:
    """What `docker info` says; None without the command."""
    if not docker_is_here():
        return None
    try:
        done = subprocess.run(INFO, capture_output=True, text=True, timeout=INFO_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Unknown(f"`docker info` did not end within {INFO_SECONDS} s")
    if done.returncode:
        return Unknown((done.stderr.strip() or done.stdout.strip() or "it says nothing").splitlines()[-1])
    return docker_seen(json.loads(done.stdout))


def unlinked_nodes() -> tuple[str, ...] | None:
    """The driver's nodes that /dev/char does not lead to; None where the engine is on another machine."""
    elsewhere = os.environ.get("DOCKER_HOST", "").startswith(("tcp:", "ssh:"))
    return None if elsewhere else driver.unlinked_nodes()
