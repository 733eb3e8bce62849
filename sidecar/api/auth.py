"""Who may ask: the key, the Host and the Origin."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

OPEN_PATHS = frozenset({"/health", "/livez", "/readyz", "/startupz"})


class KeyCheck:
    """Compares bearer tokens in constant time; without a key everybody passes."""

    def __init__(self, api_key: str | None) -> None:
        self._digest = None if api_key is None else _digest(api_key.encode())

    @property
    def needed(self) -> bool:
        """Whether a key is asked for at all."""
        return self._digest is not None

    def passes(self, authorization: bytes) -> bool:
        """Whether the header's raw bytes carry the key."""
        if self._digest is None:
            return True
        scheme, _, token = authorization.partition(b" ")
        # Digests have one length, so not even the key's length shows in the time taken.
        same = hmac.compare_digest(_digest(token.strip()), self._digest)
        return same and scheme.lower() == b"bearer"


class HostCheck:
    """Keeps web pages of other names out (DNS rebinding, cross-site posts).

    Where people reach the service on loopback, a Host must be a loopback name, a single label
    (a container's name) or listed. Elsewhere any Host passes, unless a list is given.
    """

    def __init__(self, reached_at: str, allowed: Iterable[str] = ()) -> None:
        self._allowed = frozenset(name.lower().strip("[]") for name in allowed)
        self._strict = is_loopback(reached_at) or bool(self._allowed)

    def allows_host(self, host: str) -> bool:
        """Whether the Host header may be used."""
        name = _name(host)
        return not self._strict or (name is not None and self._trusted(name))

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether a web page of `origin` may ask: a trusted name, or our own."""
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        name = _name(parts.netloc)
        if parts.scheme not in ("http", "https") or name is None:
            return False
        if parts.netloc.lower() == host.lower() and self.allows_host(host):
            return True
        return is_loopback(name) or name in self._allowed

    def _trusted(self, name: str) -> bool:
        single_label = "." not in name and ":" not in name
        return is_loopback(name) or single_label or name in self._allowed


def is_loopback(address: str) -> bool:
    """Whether a name or an address stays on this machine."""
    name = address.lower().strip("[]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str | None:
    if host.startswith("["):
        name, closed, rest = host[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        name, _, port = host.partition(":")
        closed = "]"
    if not name or not closed or (port and not port.isdigit()):
        return None
    return name.lower().removesuffix(".")


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
