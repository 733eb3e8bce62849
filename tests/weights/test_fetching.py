"""What the serving process sees of a download: progress, the files, the failure; and that it can end it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path

import psutil
import pytest

from sidecar.embedded import GGUF_Q4_0, GGUF_Q8_0
from sidecar.engines.fetching import fetched
from sidecar.errors import NotOnHub, WeightsDamaged
from sidecar.fetch import Job
from sidecar.llama_args import LlamaFiles
from sidecar.profiles import LlamaCpp
from tests.weights.machine import Machine, profile_of

MODEL = GGUF_Q4_0.read_bytes()
REPO, NAME = "owner/model-GGUF", "model.gguf"


def children() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie, too
            if "sidecar.fetch" in " ".join(child.cmdline()):
                found.append(child)
    return found


def run(job: Job, heard: list[tuple[float, str]] | None = None) -> LlamaFiles:
    """The files, with what was reported meanwhile."""
    told = [] if heard is None else heard
    return asyncio.run(fetched(job, lambda *one: told.append(one)))


@pytest.fixture
def job(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Into a folder of its own; the child has the machine's hub."""
    for name, value in machine.env().items():
        monkeypatch.setenv(name, value)
    block = LlamaCpp(hf_repo_id=REPO, hf_filename=NAME, model_root=str(machine.folder / "gguf"))
    return Job(profile_of(block))


def test_progress_and_the_files(machine: Machine, job: Job) -> None:
    machine.hub.add(REPO, {NAME: MODEL})
    heard: list[tuple[float, str]] = []
    files = run(job, heard)
    assert files.model.read_bytes() == MODEL
    assert heard[-1][0] == 1.0
    assert REPO in heard[0][1]
    assert children() == []
    asked, heard[:] = len(machine.hub.requests), []
    assert run(job, heard) == files
    assert (len(machine.hub.requests), heard) == (asked, [])


def test_the_childs_failure_is_ours(machine: Machine, job: Job) -> None:
    with pytest.raises(NotOnHub, match="no such repository"):
        run(job)
    assert children() == []


def test_a_given_file_needs_no_child(tmp_path: Path) -> None:
    assert run(Job(profile_of(LlamaCpp(model_path="embedded")))).model == GGUF_Q8_0
    cut = tmp_path / NAME
    cut.write_bytes(MODEL[:99])
    with pytest.raises(WeightsDamaged, match="is truncated"):
        run(Job(profile_of(LlamaCpp(model_path=str(cut)))))


def test_giving_up_ends_the_child_and_the_next_one_goes_on(machine: Machine, job: Job) -> None:
    blob = machine.hub.add(REPO, {NAME: MODEL})[NAME]
    blob.released = threading.Event()

    async def give_up_halfway() -> None:
        halfway = asyncio.Event()
        task = asyncio.create_task(fetched(job, lambda share, _: halfway.set() if share > 0 else None))
        await halfway.wait()
        assert len(children()) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up_halfway())
    assert children() == []
    blob.released.set()
    assert run(job).model.read_bytes() == MODEL
    assert blob.ranges[0] is None
    assert blob.ranges[-1] is not None
