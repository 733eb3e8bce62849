"""One life of llama-server: its process, its port, and why it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sidecar.engines.child import Child
from sidecar.engines.inherited import inherited
from sidecar.engines.llama_client import LlamaClient
from sidecar.errors import EngineCrashed, SidecarError

LEASH = str(Path(__file__).with_name("leash.py"))
LOOK_SECONDS = 0.05
# When it aborts it would start a debugger, if there is one, and hide its last words behind its own.
QUIET = {"GGML_NO_BACKTRACE": "1"}


class LlamaBoot:
    """See the module. `cause` is what the requests are told that were under way when it ended."""

    def __init__(self, child: Child, client: LlamaClient) -> None:
        self.child = child
        self.client = client
        self.open_streams = 0
        self.cause: SidecarError = EngineCrashed("The engine died while it worked on this request.")
        self._gone = asyncio.Event()

    @classmethod
    async def start(
        cls, command: Callable[[int], Sequence[str]], environment: Mapping[str, str]
    ) -> LlamaBoot:
        """Start `command(port)` on a free port of loopback, with a key that only we have."""
        port, key = _free_port(), secrets.token_urlsafe(32)
        # In its environment and not on the command line, which every user of the machine can read.
        env = {**inherited(), **environment, "LLAMA_API_KEY": key, **QUIET}
        leash = (sys.executable, "-I", "-S", LEASH, str(os.getpid()))
        child = await Child.start((*leash, *command(port)), env=env)
        return cls(child, LlamaClient(port, key))

    async def healthy(self) -> bool:
        """Wait until it has loaded its model; False when it ended instead."""
        ended = asyncio.ensure_future(self.child.ended())
        try:
            while not ended.done():
                if await self.client.healthy():
                    return True
                await asyncio.wait([ended], timeout=LOOK_SECONDS)
        finally:
            ended.cancel()
        return False

    async def gone(self, patience_s: float) -> None:
        """Wait for its end, if that is near."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), patience_s)

    async def close(self, grace_s: float) -> int:
        """End it, if it has not ended, and whatever waits for it; the exit code."""
        self._gone.set()
        # First the connections: on SIGTERM, llama-server waits for the streams that it still sends.
        self.client.close()
        return await self.child.stop(grace_s)


def _free_port() -> int:
    """A port that nobody had a moment ago; who loses it in between is started again on another."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
