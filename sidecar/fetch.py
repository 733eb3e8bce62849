"""`python -m sidecar.fetch`: finds or fetches the GGUF files of a profile, in a process of its own.

The process that serves stays small and can end this one at any time: what was fetched is kept, and
the next run goes on from it. Standard input brings one job; each line of standard output is one
`Told`, a JSON object: progress, and last the files or the failure.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from sidecar.errors import StartError, WeightsMissing, revive
from sidecar.llama_args import LlamaFiles
from sidecar.model_files import llama_files
from sidecar.planning import Target, check_before_fetch
from sidecar.profiles import Profile

DAMAGED_JOB = 64


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be found: the files of a profile of llama.cpp; with `held_to`, if they will fit."""

    profile: Profile
    cache_dir: Path | None = None
    held_to: Target | None = None


@dataclass(frozen=True, slots=True)
class Fraction:
    """How much of all bytes is here, and what is being done."""

    fraction: float
    detail: str


Told = Fraction | LlamaFiles | StartError


def encode_job(job: Job) -> str:
    """One line for standard input."""
    return (
        json.dumps(
            {
                "profile": job.profile.model_dump(mode="json", exclude_defaults=True),
                "cache_dir": _text(job.cache_dir),
                "held_to": None if job.held_to is None else asdict(job.held_to),
            }
        )
        + "\n"
    )


def decode_job(text: str) -> Job:
    """The job of the line. Raises ValueError for anything else."""
    try:
        said = json.loads(text)
        held_to = None if said["held_to"] is None else Target(**said["held_to"])
        return Job(Profile.model_validate(said["profile"]), _path(said["cache_dir"]), held_to)
    except (LookupError, TypeError) as error:
        raise ValueError(f"no job: {error}") from error


def encode(told: Told) -> str:
    """One line for standard output."""
    if isinstance(told, StartError):
        said: dict[str, object] = {"code": told.code, "message": told.message}
    elif isinstance(told, LlamaFiles):
        said = {"model": str(told.model), "mmproj": _text(told.mmproj)}
    else:
        said = asdict(told)
    return json.dumps(said) + "\n"


def decode(line: str) -> Told:
    """What the line tells. Raises ValueError for a line that `encode` did not write."""
    said = json.loads(line)
    try:
        if "code" in said:
            error = revive(said["code"], said["message"])
            return error if isinstance(error, StartError) else WeightsMissing(error.message)
        if "model" in said:
            return LlamaFiles(Path(said["model"]), _path(said["mmproj"]))
        return Fraction(float(said["fraction"]), str(said["detail"]))
    except (LookupError, TypeError) as error:
        raise ValueError(f"told nothing that is known: {line[:200]!r}") from error


def run(job: Job, out: TextIO) -> int:
    """Do the job and tell about it; the exit code of the process."""

    def tell(told: Told) -> None:
        out.write(encode(told))
        out.flush()

    try:
        if job.held_to is not None and job.held_to.budget_mib is not None:
            check_before_fetch(
                job.profile, job.cache_dir, job.held_to, lambda detail: tell(Fraction(0.0, detail))
            )
        assert job.profile.llamacpp is not None
        files = llama_files(
            job.profile.llamacpp,
            cache_dir=job.cache_dir,
            on_progress=lambda fraction, detail: tell(Fraction(fraction, detail)),
        )
    except StartError as error:
        tell(error)
        return error.exit_code
    tell(files)
    return 0


def main() -> int:
    """Standard input to standard output; Ctrl-C and a closed pipe end it without a word."""
    try:
        job = decode_job(sys.stdin.readline())
    except ValueError as error:
        print(f"sidecar.fetch: {error}", file=sys.stderr)
        return DAMAGED_JOB
    try:
        return run(job, sys.stdout)
    except (KeyboardInterrupt, BrokenPipeError):
        return 1


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


if __name__ == "__main__":
    sys.exit(main())
