"""Pictures by address: fetched here, from hosts that the profile names, and from nowhere else.

`image_hosts` holds names, each with a port where it is not the scheme's own: `images.example.com`,
`files:9000`. A name that can only be local (an address of a private network, `localhost`, a name
without a dot or with an ending such as `.internal`) may be asked by http too, and may have a private
address. Every other name is asked by https alone, and what it resolves to must be public: the address
that was checked is the one that is connected to, so a name that changes its mind gains nothing.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import HttpProcessingError

from sidecar.api.images import MAX_BODY_BYTES, MAX_IMAGES
from sidecar.errors import BadRequest

MAX_FILE_BYTES = 10 * 1024 * 1024
FETCH_SECONDS = 10.0
LOCAL_ENDINGS = (".localhost", ".local", ".lan", ".internal", ".home.arpa")
PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last four bytes are an IPv4 address


async def fetched(messages: Sequence[Any], hosts: Sequence[str], seconds: float = FETCH_SECONDS) -> list[Any]:
    """The messages with the picture itself in place of each address of one of the hosts.

    What is no such address stays as it is. `seconds` is the time for all of them. Raises BadRequest
    that names the part.
    """
    found = list(messages)
    places = [place for index, item in enumerate(found) for place in _places(index, item)] if hosts else []
    if len(places) > MAX_IMAGES:
        raise BadRequest(f"A request may hold {MAX_IMAGES} images at most.", param="messages")
    left_bytes = MAX_BODY_BYTES
    try:
        async with asyncio.timeout(seconds):
            for index, part, url in places:
                where = f"messages.{index}.content.{part}"
                data = await _fetched(url, hosts, min(MAX_FILE_BYTES, left_bytes), where)
                left_bytes -= len(data)
                found[index] = _with(found[index], part, data)
    except TimeoutError:
        raise BadRequest(f"The images did not arrive within {seconds:g} s.", param="messages") from None
    return found


def is_local_name(host: str) -> bool:
    """Whether the name can not be one of the public net's."""
    try:
        return not is_public(host)
    except ValueError:
        return "." not in host or host.endswith(LOCAL_ENDINGS)


def is_public(address: str) -> bool:
    """Whether the IP address is one of the public net's, whatever it is wrapped in. Raises ValueError."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


def _places(index: int, item: Any) -> list[tuple[int, int, str]]:
    """Message, part and address of each picture that is elsewhere."""
    content = item.get("content") if isinstance(item, dict) else None
    parts = content if isinstance(content, list) else []
    found = [(index, number, _address(part)) for number, part in enumerate(parts)]
    return [(at, number, url) for at, number, url in found if url is not None]


def _address(part: Any) -> str | None:
    if not isinstance(part, dict) or part.get("type") != "image_url":
        return None
    image_url = part.get("image_url")
    url = image_url.get("url") if isinstance(image_url, dict) else image_url
    return url if isinstance(url, str) and url[:8].lower().startswith(("http://", "https://")) else None


def _with(item: dict[str, Any], part: int, data: bytes) -> dict[str, Any]:
    url = f"data:image/fetched;base64,{base64.b64encode(data).decode()}"
    content = list(item["content"])
    content[part] = {"type": "image_url", "image_url": {"url": url}}
    return {**item, "content": content}


async def _fetched(url: str, hosts: Sequence[str], limit_bytes: int, where: str) -> bytes:
    host = _checked(url, hosts, where)
    connector = aiohttp.TCPConnector(resolver=_Checked(local=is_local_name(host)), use_dns_cache=False)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(
                url, allow_redirects=False, headers={"accept-encoding": "identity", "accept": "image/*"}
            ) as answer,
        ):
            if answer.status != 200:
                raise _unfetched(where, f"its host says {answer.status}; redirections are not followed")
            return await _read(answer, limit_bytes, where)
    except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
        raise _unfetched(where, f"its host can not be asked ({type(error).__name__})") from None


async def _read(answer: aiohttp.ClientResponse, limit_bytes: int, where: str) -> bytes:
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise _unfetched(where, "its host sends it packed")
    body = bytearray()
    async for data in answer.content.iter_any():
        body += data
        if len(body) > limit_bytes:
            raise _unfetched(where, f"it is larger than the {limit_bytes} bytes that are left for it")
    return bytes(body)


def _checked(url: str, hosts: Sequence[str], where: str) -> str:
    """The host's name, if it is on the list with this port and may be asked in this way."""
    try:
        split = urlsplit(url)
        host, port = (split.hostname or "").lower(), split.port or PORTS[split.scheme]
    except (ValueError, KeyError):
        raise _unfetched(where, "it is no address") from None
    if not _listed(host, port, split, hosts):
        raise _unfetched(where, "the profile's `image_hosts` do not name its host and port")
    if split.scheme == "http" and not is_local_name(host):
        raise _unfetched(where, "only https is used for this host")
    return host


def _listed(host: str, port: int, split: SplitResult, hosts: Sequence[str]) -> bool:
    if split.username is not None or split.password is not None:
        return False
    named = {name.lower() for name in hosts}
    return f"{host}:{port}" in named or (host in named and port == PORTS[split.scheme])


class _Checked(AbstractResolver):
    """Resolves to addresses that may be connected to, and to no others."""

    def __init__(self, *, local: bool) -> None:
        self._local = local

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """What the system's resolver says, checked. Raises OSError when nothing of it is left."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        good = [(kind, str(at[0])) for kind, _, _, _, at in found if self._local or is_public(str(at[0]))]
        if not good:
            raise OSError("no public address")
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST
            )
            for kind, address in good
        ]

    async def close(self) -> None:
        """Nothing is kept."""


def _unfetched(where: str, why: str) -> BadRequest:
    return BadRequest(f"`{where}`: the image can not be fetched: {why}.", param=where)
