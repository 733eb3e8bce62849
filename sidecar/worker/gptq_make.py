"""Making a GPTQ checkpoint: one at a time, in a process of its own, whole or not there at all.

This side checks the room, starts `sidecar.worker.quantize`, passes on how far it is, and gives the
result its name when it is whole. Imports no torch, so that `llm-sidecar quantize` can use it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import msgspec

from sidecar import errors, room, weights
from sidecar.errors import ConfigError, StartError
from sidecar.transfer import alone
from sidecar.worker import gptq_plan, messages
from sidecar.worker.environment import environment_with
from sidecar.worker.gptq_plan import Needs
from sidecar.worker.messages import Log, Progress, Refused

log = logging.getLogger("sidecar.worker")

COMMAND = (sys.executable, "-m", "sidecar.worker.quantize")
PHASE = "quantize"
_LAST_WORDS_BYTES = 4096

# Phase, share done (None: not known), detail.
Report = Callable[[str, float | None, str], None]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What the quantising process is told. `target` and `scratch` are folders that it makes."""

    source: str
    target: str
    scratch: str
    bits: int
    group_size: int
    dtype: str
    rows: int
    device: str
    threads: int | None
    vram_budget_mib: int | None


@dataclass(frozen=True, slots=True)
class Wish:
    """How to quantise: with what precision, where, and within how much of the card.

    `device` is cpu, cuda or cuda:N. `allowed` False: not at all (AUTO_QUANTIZE=0).
    """

    bits: int = 4
    group_size: int = 128
    device: str = "cpu"
    threads: int | None = None
    vram_budget_mib: int | None = None
    allowed: bool = True

    @property
    def on_cuda(self) -> bool:
        """Whether a card is used; `device` is settled by then."""
        return self.device.startswith("cuda")


def check_room(title: str, needs: Needs, wish: Wish, folder: Path, download_mib: float = 0.0) -> None:
    """Raises when the model can not be fetched and quantised with what is free now."""
    gptq_plan.check_room(
        title,
        needs,
        download_mib=download_mib,
        free_disk_mib=room.free_disk_mib(folder),
        free_memory_mib=room.free_memory_mib(),
        budget_mib=wish.vram_budget_mib,
    )


def make(source: Path, target: Path, wish: Wish, report: Report) -> None:
    """Quantise the model in the folder `source` into the new folder `target`, which is whole or not there.

    Of several that want the same at the same time one does it. Raises ConfigError for what can not be
    quantised, NoMemoryNow, or StartError with the cause.
    """
    title = weights.title(source)
    shape = gptq_plan.shape(weights.check(source), title, wish.group_size)
    needs = gptq_plan.needs(shape, wish.bits, wish.group_size, on_cuda=wish.on_cuda)
    partial, lock = (target.with_name(f".{target.name}.{kind}") for kind in ("partial", "lock"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            alone(lock, lambda: report(PHASE, None, "another process is at it; waiting")),
            _swept(partial, lock),
        ):
            if target.is_dir() and any(target.iterdir()):
                return
            check_room(title, needs, wish, target.parent)
            job = Job(
                source=str(source),
                target=str(partial / "model"),
                scratch=str(partial / "scratch"),
                bits=wish.bits,
                group_size=wish.group_size,
                dtype=shape.dtype,
                rows=shape.rows,
                device=wish.device,
                threads=wish.threads,
                vram_budget_mib=wish.vram_budget_mib,
            )
            log.info("quantising %s to %d bits, once; about %.0f MiB", title, wish.bits, needs.result_mib)
            _run(job, title, report)
            Path(job.target).rename(target)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or target.parent} can not be written ({error.strerror}); "
            "set HF_HOME (--out) to a folder that can."
        ) from error


@contextlib.contextmanager
def _swept(partial: Path, lock: Path) -> Iterator[None]:
    """Nothing of it before, nothing of it after, unless this process is killed without a word.

    What is left then, the next that holds the lock removes.
    """

    def end(*_: object) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(partial, ignore_errors=True)
        lock.unlink(missing_ok=True)


def _run(job: Job, title: str, report: Report) -> None:
    """Start the process and listen until it ends. Raises what it says, or what its end says."""
    ours, theirs = socket.socketpair()
    with ours, tempfile.TemporaryFile() as stderr:
        with theirs:
            child = subprocess.Popen(
                [*COMMAND, "--fd", str(theirs.fileno()), msgspec.json.encode(job).decode()],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=environment_with({"HF_HUB_OFFLINE": "1"}),
            )
        try:
            _listen(ours, report)
            code = child.wait()
        finally:
            child.kill()
            child.wait()
        if code:
            raise StartError(f"{title} could not be quantised: {_end(code)}; {_last_words(stderr)}")


def _listen(sock: socket.socket, report: Report) -> None:
    frames = messages.Frames()
    while data := sock.recv(65536):
        for body in frames.feed(data):
            match messages.decode_from_worker(body):
                case Progress(phase=phase, fraction=fraction, detail=detail):
                    report(phase, fraction, detail)
                case Log(level=level, text=text):
                    log.log(level, "%s", text)
                case Refused(code=code, message=message):
                    raise errors.tree().get(code, StartError)(message)
                case _:
                    pass


def _end(code: int) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed, which the system does when memory runs out"
    return f"its process ended with exit code {code}"


def _last_words(stderr: IO[bytes]) -> str:
    stderr.seek(max(stderr.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES, 0))
    lines = stderr.read().decode("utf-8", "replace").split("\n")
    return f"its last words: {next((line for line in reversed(lines) if line.strip()), 'none')[:200]}"
