"""A supervised process: started in a group of its own, never left behind, restarted with patience.

`Child` is one life of the process. `restart_delay_s` decides, as a value, whether and when there
is another; the engine that owns the child acts on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence

from sidecar.engines.killed import memory_words, oom_kills

# Five deaths in ten minutes are a fault that another start will not mend.
RESTART_BUDGET = 5
RESTART_WINDOW_S = 600.0
_TAIL_LINES = 100
_LINE_BYTES = 4096


def restart_delay_s(deaths_at: Sequence[float], now: float) -> float | None:
    """Seconds to wait before the next start: 1, 2, 4 ... 60; None when the budget is spent.

    `deaths_at` are the times of all deaths so far, `now` and they of one monotonic clock.
    """
    recent = [at for at in deaths_at if now - at < RESTART_WINDOW_S]
    if len(recent) >= RESTART_BUDGET:
        return None
    return float(min(2 ** max(len(recent) - 1, 0), 60))


class Child:
    """One process. `start` makes it, `ended` waits for its end, `stop` brings that about."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._group_gone = False
        self._killed = False
        self._kills_before = oom_kills()
        self._drain = asyncio.create_task(self._read_stderr(), name="child-stderr")

    @classmethod
    async def start(
        cls, command: Sequence[str], *, pass_fds: Sequence[int] = (), env: Mapping[str, str] | None = None
    ) -> Child:
        """Start `command` in a session of its own, so that its whole group can be signalled."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=tuple(pass_fds),
            env=None if env is None else dict(env),
            start_new_session=True,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """The process id, also of the group."""
        return self._process.pid

    def tail(self) -> str:
        """The last lines that it wrote to stderr."""
        return "\n".join(self._tail)

    def memory_words(self, exit_code: int) -> str:
        """Why it ended with that code, if memory was the reason and not we; else empty."""
        kills = 0 if self._killed else oom_kills() - self._kills_before
        return memory_words(exit_code, self.tail(), kills)

    async def ended(self) -> int:
        """Wait for the end; the exit code, negative for a signal."""
        code = await self._process.wait()
        # A grandchild may hold the pipe open: its last words are not worth waiting for.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._drain), 1.0)
        self._signal(signal.SIGKILL)  # the group: whatever the process itself left behind
        self._group_gone = True
        return code

    async def stop(self, grace_s: float, *, patience_s: float = 0.0) -> int:
        """Wait `patience_s` for its own end, then SIGTERM to the group, SIGKILL after `grace_s`.

        Returns the exit code, when the process is gone.
        """
        if (code := await self._ended_within(patience_s)) is not None:
            return code
        self._signal(signal.SIGTERM)
        if (code := await self._ended_within(grace_s)) is not None:
            return code
        self.kill()
        return await self.ended()

    async def _ended_within(self, seconds: float) -> int | None:
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(self.ended())), seconds)
        except TimeoutError:
            return None

    def kill(self) -> None:
        """SIGKILL to the group, at once."""
        self._killed = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # The group's id is the pid, which is not reused while the process is not waited for, or
        # while any member of the group lives. Later it may be anybody's.
        if self._group_gone:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _read_stderr(self) -> None:
        """Always read, or a talkative child would block on a full pipe. Long lines are cut."""
        stream = self._process.stderr
        if stream is None:
            return
        rest = b""
        while data := await stream.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-_LINE_BYTES:]
            self._tail.extend(line[-_LINE_BYTES:].decode("utf-8", "replace") for line in lines)
        if rest:
            self._tail.append(rest.decode("utf-8", "replace"))
