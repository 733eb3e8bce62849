"""A file of the hub, read like one on disk by HTTP ranges: for its header, which is a small part of it."""

from __future__ import annotations

from functools import partial

from sidecar.transfer import CutShort, patiently

BLOCK_BYTES = 1024 * 1024
# Bytes of one question: a header that goes on is asked for in larger and larger pieces.
MOST_BLOCKS = 16
PAUSES_S = (0.5, 1.0, 2.0)


class RemoteFile:
    """`url` read forward, with `read` and `seek` as a binary stream has them.

    Raises what the hub's client raises when the pauses are used up.
    """

    def __init__(self, url: str, size_bytes: int) -> None:
        self._url = url
        self._size = size_bytes
        self._at = 0
        self._held_at = 0
        self._held = b""
        self._blocks = 1
        self.fetched_bytes = 0

    def read(self, count: int) -> bytes:
        """The next bytes; fewer at the end of the file."""
        end = min(self._at + count, self._size)
        parts = []
        while self._at < end:
            inside = self._at - self._held_at
            if not 0 <= inside < len(self._held):
                self._fetch()
                continue
            parts.append(self._held[inside : inside + end - self._at])
            self._at += len(parts[-1])
        return b"".join(parts)

    def seek(self, offset: int, whence: int = 0) -> int:
        """To `offset` from the beginning, or from where we are with `whence` 1; nothing is fetched yet."""
        self._at = offset + (self._at if whence == 1 else 0)
        return self._at

    def _fetch(self) -> None:
        end = min(self._at + self._blocks * BLOCK_BYTES, self._size)
        ask = partial(_range, self._url, self._at, end)
        self._held, self._held_at = patiently(ask, PAUSES_S, lambda: False), self._at
        self.fetched_bytes += len(self._held)
        self._blocks = min(2 * self._blocks, MOST_BLOCKS)


def _range(url: str, begin: int, end: int) -> bytes:
    """The bytes from `begin` up to `end`."""
    from huggingface_hub import constants, get_session, get_token, hf_raise_for_status

    headers = {"Accept-Encoding": "identity", "Range": f"bytes={begin}-{end - 1}"}
    if token := get_token():
        headers["Authorization"] = f"Bearer {token}"  # not sent on to where the hub stores its files
    found = bytearray()
    with get_session().stream(
        "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
    ) as answer:
        hf_raise_for_status(answer)
        skip = 0 if answer.status_code == 206 else begin  # who knows no ranges sends all of it
        for chunk in answer.iter_bytes():
            found += chunk[skip:]
            skip = max(0, skip - len(chunk))
            if len(found) >= end - begin:
                break  # and the rest is not waited for
    if len(found) < end - begin:
        raise CutShort(f"{len(found)} of {end - begin} bytes came")
    return bytes(found[: end - begin])
