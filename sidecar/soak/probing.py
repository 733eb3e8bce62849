"""Asks for /health every 100 ms, in a process of its own: `python probing.py HOST PORT`.

Whoever drives a load in the same process would measure itself. Ends when its input does; prints how
long each probe took, in milliseconds, as JSON; null for one that brought no answer of 200. Run as a file,
without the package, so that it is up at once and stays small.
"""

import json
import select
import socket
import sys
import time

EVERY_S, PATIENCE_S = 0.1, 30.0


def probe_ms(host: str, port: int) -> float | None:
    """One probe on a connection of its own, as Docker and kubelet ask."""
    began = time.monotonic()
    try:
        with socket.create_connection((host, port), PATIENCE_S) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            status = connection.recv(64)
    except OSError:
        return None
    return (time.monotonic() - began) * 1e3 if status.startswith(b"HTTP/1.1 200 ") else None


def main() -> None:
    """Until nobody wants to know any more."""
    host, port = sys.argv[1], int(sys.argv[2])
    found: list[float | None] = []
    while not select.select([sys.stdin], [], [], EVERY_S)[0]:
        found.append(probe_ms(host, port))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
