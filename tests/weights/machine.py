"""Programs that fetch from a hub on the loopback, as a user starts them."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from sidecar import fetch
from sidecar.fetch import Fraction, Job, Told
from sidecar.llama_args import LlamaFiles
from sidecar.profiles import LlamaCpp, Profile
from tests.fakes.hub import Hub

ROOT = Path(__file__).parents[2]
# The settings of whoever runs the tests must not be theirs.
CLEAN = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "TMPDIR")}


def profile_of(block: LlamaCpp) -> Profile:
    """A profile that is no more than its block."""
    vision = bool(block.mmproj_filename)
    return Profile(name="p", backend="llamacpp", model_id="m", llamacpp=block, supports_vision=vision)


@dataclass
class Outcome:
    """A finished `python -m sidecar.fetch`."""

    code: int
    told: list[Told]
    log: str

    @property
    def files(self) -> LlamaFiles:
        """The files, which must have been found."""
        assert isinstance(self.told[-1], LlamaFiles), (self.told[-1], self.log)
        return self.told[-1]

    @property
    def refusal(self) -> str:
        """The failure's one line."""
        error = self.told[-1]
        assert not isinstance(error, LlamaFiles | Fraction), error
        assert "\n" not in error.message
        assert self.code == error.exit_code
        return error.message

    @property
    def details(self) -> list[str]:
        """What was said on the way."""
        return [told.detail for told in self.told if isinstance(told, Fraction)]


@dataclass
class Machine:
    """Where programs run: a folder of its own, and a hub."""

    folder: Path
    hub: Hub
    environ: dict[str, str] = field(default_factory=dict)

    def env(self) -> dict[str, str]:
        """The environment of the programs."""
        own = {"HOME": str(self.folder), "HF_HOME": str(self.folder / "hf"), "HF_ENDPOINT": self.hub.url}
        return {**CLEAN, **own, **self.environ}

    @property
    def cache(self) -> Path:
        """The hub's cache there."""
        return self.folder / "hf" / "hub"

    def start(
        self, block: LlamaCpp, *, cache_dir: Path | None = None, largest_file_bytes: int | None = None
    ) -> subprocess.Popen[str]:
        """Start the fetch of the block's files."""

        def limit() -> None:
            assert largest_file_bytes is not None
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file_bytes, largest_file_bytes))

        process = subprocess.Popen(
            [sys.executable, "-m", "sidecar.fetch"], cwd=ROOT, env=self.env(), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=limit if largest_file_bytes is not None else None,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(fetch.encode_job(Job(profile_of(block), cache_dir)))
        process.stdin.close()
        process.stdin = None
        return process

    def fetch(
        self, block: LlamaCpp, *, cache_dir: Path | None = None, largest_file_bytes: int | None = None
    ) -> Outcome:
        """Fetch the block's files and wait for the end."""
        return finished(self.start(block, cache_dir=cache_dir, largest_file_bytes=largest_file_bytes))

    def typed(self, *command: str, **environ: str) -> tuple[int, str, str]:
        """Run the command to its end: exit code, standard output, standard error."""
        done = subprocess.run(
            command, cwd=ROOT, env={**self.env(), **environ}, capture_output=True, text=True, timeout=100
        )
        return done.returncode, done.stdout, done.stderr


def finished(process: subprocess.Popen[str]) -> Outcome:
    """The end of it."""
    out, log = process.communicate(timeout=100)
    assert out, log
    return Outcome(process.returncode, [fetch.decode(line) for line in out.splitlines()], log)
