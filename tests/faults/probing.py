"""Asks for /health again and again, in a process of its own: `python -m tests.faults.probing PORT [seconds]`.

Ends when its input does; prints how long each probe took, in milliseconds, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import math
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

EVERY_S = 0.02
PATIENCE_S = 30.0


def probe_ms(port: int) -> float:
    """One probe on a connection of its own, as Docker and kubelet ask. Infinite when there is no 200."""
    began = time.monotonic()
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            status = connection.recv(64)
    except OSError:
        return math.inf
    return (time.monotonic() - began) * 1e3 if status.startswith(b"HTTP/1.1 200 ") else math.inf


@contextlib.contextmanager
def probing(port: int) -> Iterator[list[float]]:
    """Probe while the block runs; afterwards the list has what every probe took, in milliseconds."""
    found: list[float] = []
    command = [sys.executable, "-m", "tests.faults.probing", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "probing\n"
        try:
            yield found
        finally:
            said, _ = process.communicate("", timeout=2 * PATIENCE_S)
            found += json.loads(said)


def main() -> None:
    port, found = int(sys.argv[1]), []
    print("probing", flush=True)
    while not select.select([sys.stdin], [], [], EVERY_S)[0]:
        found.append(probe_ms(port))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
