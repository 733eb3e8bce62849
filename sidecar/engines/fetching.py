"""The files of a profile, found or fetched.

What has to be fetched or counted is left to a process of its own: this one stays small, and can end
it at any moment. What it fetched is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable

from sidecar import fetch
from sidecar.engines.llama_boot import LEASH
from sidecar.errors import StartError, WeightsMissing
from sidecar.fetch import Job
from sidecar.llama_args import LlamaFiles
from sidecar.model_files import files_here
from sidecar.worker.environment import environment_with

log = logging.getLogger(__name__)


async def fetched(job: Job, report: Callable[[float, str], None]) -> LlamaFiles:
    """The files. Raises StartError. Cancelling it ends the fetch; the next one goes on."""
    assert job.profile.llamacpp is not None
    found = await asyncio.to_thread(files_here, job.profile.llamacpp, job.cache_dir)
    if found is not None:
        return found
    process = await _started()
    words = asyncio.create_task(_log(process), name="fetch-log")
    try:
        assert process.stdin is not None
        process.stdin.write(fetch.encode_job(job).encode())
        process.stdin.close()
        return await _heard(process, report)
    finally:
        words.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _started() -> asyncio.subprocess.Process:
    leash = (sys.executable, "-I", "-S", LEASH, str(os.getpid()))
    return await asyncio.create_subprocess_exec(
        *leash, sys.executable, "-m", "sidecar.fetch",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment_with({}),
        start_new_session=True,
    )  # fmt: skip


async def _heard(process: asyncio.subprocess.Process, report: Callable[[float, str], None]) -> LlamaFiles:
    assert process.stdout is not None
    async for line in process.stdout:
        told = fetch.decode(line.decode())
        if isinstance(told, StartError):
            raise told
        if isinstance(told, LlamaFiles):
            return told
        report(told.fraction, told.detail)
    raise WeightsMissing(f"The download ended without a word (exit code {await process.wait()}).")


async def _log(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    async for line in process.stderr:
        log.info("download: %s", line.decode("utf-8", "replace").strip())
