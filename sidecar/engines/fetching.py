"""The files of a profile, found or fetched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sidecar.llama_args import LlamaFiles
from sidecar.model_files import llama_files
from sidecar.profiles import LlamaCpp


@dataclass(frozen=True, slots=True)
class Job:
    """What to find: the profile's block, and where LLM_CACHE_DIR is."""

    block: LlamaCpp
    cache_dir: Path | None = None


async def fetched(job: Job, report: Callable[[float, str], None]) -> LlamaFiles:
    """The files. Raises StartError."""
    found = await asyncio.to_thread(
        llama_files, job.block, cache_dir=job.cache_dir, model_path=None, on_progress=report
    )
    return LlamaFiles(found.model, found.mmproj)
