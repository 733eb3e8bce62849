"""A llama-server engine for a test: the fake program or the real one, no long waits between its lives."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, cast

import psutil

from sidecar.engine import Failed, Ready
from sidecar.engines.fetching import Job
from sidecar.engines.llama_launch import Launch
from sidecar.engines.llamaserver import LlamaServerEngine
from sidecar.generation import Delta, Event, GenerationRequest, Sampling, Started
from sidecar.planning import Target
from sidecar.profiles import Profile
from tests.engines import waiting

SOURCE = Path(__file__).parents[2] / "fakes" / "llama_server.py"
LONG = "[say:one two three four five] [mute:3]"


@functools.cache
def fake() -> str:
    """The fake as a program, run by this Python without anything that starts slowly."""
    program = Path(tempfile.mkdtemp(prefix="fake-llama-")) / "llama-server"
    program.write_text(f"#!{sys.executable} -IS\n{SOURCE.read_text()}")
    program.chmod(0o755)
    return str(program)


def profile(**block: Any) -> Profile:
    """Two slots of 1024 tokens."""
    fields = {"model_path": "embedded", "ctx_size": 1024, "parallel": 2, "default_max_tokens": 512}
    return Profile.model_validate(
        {"name": "p", "backend": "llamacpp", "model_id": "m", "llamacpp": {**fields, **block}}
    )


until = partial(waiting.until, seconds=30.0)


@contextlib.asynccontextmanager
async def engine(
    *script: str,
    stall_s: float | None = None,
    binary: str | None = None,
    stderr: str = "",
    served: Profile | None = None,
    lives: int = 3,
    device: str = "cpu",
    held_to: Callable[[bool], Target] | None = None,
) -> AsyncIterator[LlamaServerEngine]:
    """Started; restarts come at once, until it has died `lives` times."""
    served = served or profile()
    launch = Launch(
        served, binary or fake(), Job(served), device,
        {"FAKE_LLAMA": " ".join(script), "FAKE_LLAMA_STDERR": stderr},
        held_to or (lambda on_gpu: Target("cuda" if on_gpu else "cpu", None)),
    )  # fmt: skip
    made = LlamaServerEngine(launch, stall_s, lambda deaths, _: 0.01 if len(deaths) < lives else None)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


async def ready(made: LlamaServerEngine) -> None:
    await until(lambda: isinstance(made.state(), Ready | Failed), "ready")
    assert isinstance(made.state(), Ready), made.state()


async def failed(made: LlamaServerEngine, seconds: float = 30.0) -> Failed:
    await until(lambda: isinstance(made.state(), Failed), "given up", seconds=seconds)
    state = made.state()
    assert isinstance(state, Failed)
    return state


async def answer(made: LlamaServerEngine, text: str, **asked: Any) -> list[Event]:
    """The events of a whole answer."""
    request = GenerationRequest("a", text, sampling=Sampling(temperature=0.0), **asked)
    await made.price(request)
    return [event async for event in made.stream(request)]


async def begun(made: LlamaServerEngine, text: str) -> AsyncGenerator[Event]:
    """An answer whose first words have come."""
    request = GenerationRequest("b", text)
    await made.price(request)
    events = cast(AsyncGenerator[Event], made.stream(request))
    assert isinstance(await anext(events), Started)
    assert isinstance(await anext(events), Delta)
    return events


async def rest(events: AsyncGenerator[Event]) -> list[Event]:
    return [event async for event in events]


def text_of(events: list[Event], choice: int = 0) -> str:
    return "".join(e.text for e in events if isinstance(e, Delta) and e.choice == choice)


def pid_of(made: LlamaServerEngine) -> int:
    assert made.child_pid is not None
    return made.child_pid


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def halted(pid: int) -> None:
    """Stop a process (SIGSTOP); return when each of its threads stands, which they do one after another."""
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: _stands(pid), "every thread stands still")


def _stands(pid: int) -> bool:
    try:
        stats = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # a thread that ended instead
        return False
    return all(stat.rpartition(") ")[2][0] == "T" for stat in stats)


def children() -> list[str]:
    """The command lines of our own children; the dead are left out, and the servers of the whole session."""
    found = []
    for child in psutil.Process(os.getpid()).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie, too
            found.append(" ".join(child.cmdline()))
    return [line for line in found if line and "server.py" not in line]
