"""Server-sent events as an engine or a hosted provider sends them. Pure: bytes in, payloads out."""

from __future__ import annotations

from sidecar.errors import EngineFault

# What the payload of the last frame is, where the whole is an answer of OpenAI's form.
DONE = b"[DONE]"
# A frame of one token is a few hundred bytes; with 20 alternatives, some thousands.
MAX_FRAME_BYTES = 1 << 20


class SseFrames:
    """Cuts a stream of server-sent events into the payloads of its `data:` lines.

    `feed` may end anywhere. Raises EngineFault on a line without an end in sight.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Every payload that `data` completed, `[DONE]` included; comments are left out."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_FRAME_BYTES:
            raise EngineFault(f"The engine sent a line of more than {MAX_FRAME_BYTES} bytes.")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]
