"""The socket that the service listens on, taken before anything is loaded, and its URL."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

from sidecar.errors import ConfigError, PortInUse

BACKLOG = 512


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """The bound socket. PortInUse when somebody else has it."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        listener = _bound(found[0][0], found[0][4])
    except (socket.gaierror, UnicodeError):
        raise ConfigError(f"HOST={host!r}: no address of this name") from None
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise PortInUse(
            f"can not listen on {host} port {port}: {why}; choose another with PORT or --port"
        ) from None
    with listener:
        yield listener


def url_of(host: str, port: int) -> str:
    """The URL of what listens on that address, from this machine."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - read, not bound
    return f"http://[{name}]:{port}" if name.count(":") > 1 and "[" not in name else f"http://{name}:{port}"


def _bound(family: int, address: Any) -> socket.socket:
    # Only of a socket that names its protocol does asyncio know that it is TCP, and turns off
    # Nagle's delay, which would cost every answer on a kept connection 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
