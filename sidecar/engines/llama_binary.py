"""The llama-server program: where it is, what it says of itself, which devices it sees."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass

import anyio

from sidecar.errors import ConfigError
from sidecar.llama_flags import LlamaFlags, parse_help

NAME = "llama-server"
PROBE_SECONDS = 30.0
MAX_SAID_BYTES = 1 << 20
WAYS = (
    "set LLAMA_SERVER_PATH to the program; install one (github.com/ggml-org/llama.cpp/releases, brew install "
    "llama.cpp, or Debian's llama.cpp-tools); or run the image of docker/llamacpp.Dockerfile"
)
_DEVICE = re.compile(r"^\s+(?P<name>[A-Za-z]+\d+): (?P<title>.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Binary:
    """One program, asked. `devices` are the cards that it would use, in its own words."""

    path: str
    flags: LlamaFlags
    devices: tuple[str, ...] = ()

    def on_gpu(self, device: str) -> bool:
        """Whether it works on cards where DEVICE is `device`. ConfigError for a card that it does not see."""
        if device.startswith("cuda") and not self.devices:
            raise ConfigError(
                f"DEVICE is {device}, but {self.path} sees no card (its --list-devices is empty); accepted "
                "here: auto, cpu; or take a llama-server that was built for this card"
            )
        return device != "cpu" and bool(self.devices)


def find(given: str | None, environ: Mapping[str, str]) -> str:
    """The path of the program: `given` (LLAMA_SERVER_PATH), else on PATH. Raises ConfigError."""
    if given is not None:
        if os.path.isfile(given) and os.access(given, os.X_OK):
            return os.path.abspath(given)
        raise ConfigError(f"LLAMA_SERVER_PATH={given}: no such program; {WAYS}")
    found = shutil.which(NAME, path=environ.get("PATH"))
    if found is None:
        raise ConfigError(f"there is no {NAME} on PATH, which this profile needs; {WAYS}")
    return os.path.abspath(found)


async def ask(path: str, environ: Mapping[str, str]) -> Binary:
    """What it says to `--help`, `--version` and `--list-devices`. ConfigError for another program."""
    texts = await asyncio.gather(
        *(_said(path, flag, environ) for flag in ("--help", "--version", "--list-devices"))
    )
    flags = parse_help(texts[0], texts[1])
    if not flags.knows("--model"):  # in every build's list, and in no other program's
        said = " ".join(texts[0].split())[-200:] or "nothing"
        raise ConfigError(f"{path} is no llama-server that runs here: to --help it says {said!r}; {WAYS}")
    devices = tuple(f"{found['name']}: {found['title']}" for found in _DEVICE.finditer(texts[2]))
    return Binary(path, flags, devices)


async def _said(path: str, flag: str, environ: Mapping[str, str]) -> str:
    """Both streams: which one the answer is on depends on the build."""
    try:
        process = await asyncio.create_subprocess_exec(
            path, flag, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env=dict(environ), start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise ConfigError(f"{path} can not be run: {error.strerror}; {WAYS}") from None
    said = b""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            while len(said) < MAX_SAID_BYTES and (data := await process.stdout.read(65536)):
                said += data
    except TimeoutError:
        raise ConfigError(f"{path} {flag} does not end; {WAYS}") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with anyio.CancelScope(shield=True):
            await process.wait()
    return said.decode("utf-8", "replace")
