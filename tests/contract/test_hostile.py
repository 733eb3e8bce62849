"""Health answers at once whatever is asked: every slot busy, 20 hostile bodies of 1 MiB a second."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from tests.e2e.program import ROOT, Program, until

# `HOSTILE_SECONDS=60` for a longer look.
SECONDS = float(os.environ.get("HOSTILE_SECONDS", "10"))
EVERY_S = 0.04
P99_MS, MAX_MS = 50.0, 250.0
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


def _probed_ms(port: int) -> float:
    """One look at /health on a connection of its own, as a supervisor does it."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(HEALTH)
        answer = b""
        while part := client.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200"), answer[:80]
    return (time.perf_counter() - began) * 1e3


@pytest.mark.timeout(60 + 2 * SECONDS)
def test_health_answers_at_once(server: Program) -> None:
    slots = 16
    command = [sys.executable, "-m", "tests.contract.hostile", str(server.port), str(SECONDS), str(slots)]
    before = server.child().pid
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as hostile:
        until(lambda: server.active() >= slots, "every slot is busy")
        probed = []
        while hostile.poll() is None:
            probed.append(_probed_ms(server.port))
            time.sleep(max(0.0, EVERY_S - probed[-1] / 1e3))
        assert hostile.stdout is not None
        seen = json.loads(hostile.stdout.read())
    probed.sort()
    p99 = probed[int(0.99 * len(probed))]
    median = probed[len(probed) // 2]
    figures = f"{len(probed)} probes: median {median:.1f}, p99 {p99:.1f}, most {probed[-1]:.1f} ms"
    print(figures, seen)
    assert len(probed) >= 15 * SECONDS, figures
    assert set(seen["statuses"]) == {"400"}, seen
    assert seen["going"] == slots
    assert server.child().pid == before
    assert p99 <= P99_MS, figures
    assert probed[-1] <= MAX_MS, figures
