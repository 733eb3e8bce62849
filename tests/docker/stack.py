"""The compose project as a user runs it: real engine, CPU image, a stand-in nvidia-smi."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SIDECAR, WATCHDOG = "llm-sidecar", "vram-watchdog"
CPU = ("compose.yaml", "docker/compose.cpu.yaml")
LOW, HIGH = "6000", "11000"


def docker(*arguments: str, check: bool = True, seconds: float = 120) -> str:
    """What `docker ...` printed; AssertionError with its words when it fails and `check` is set."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=seconds, cwd=ROOT)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout


def until(condition: Callable[[], Any], what: str, seconds: float = 180.0) -> float:
    """Wait for the condition; the seconds that it took. AssertionError when it never comes."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if condition():
            return time.monotonic() - began
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:g} s: {what}")


@dataclass
class Stack:
    """One project that is up. `lists` counts the lists of readings that its stand-in got."""

    port: int
    files: Sequence[str]
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    lists: int = 0

    @property
    def url(self) -> str:
        """Where the sidecar is published."""
        return f"http://127.0.0.1:{self.port}"

    def compose(self, *arguments: str, check: bool = True, seconds: float = 300) -> str:
        """`docker compose` with this project's files."""
        files = [part for file in self.files for part in ("-f", file)]
        done = subprocess.run(
            ["docker", "compose", *files, *arguments],
            capture_output=True, text=True, timeout=seconds, cwd=ROOT,
            # Whatever is up is meant, and what comes up is named.
            env={**os.environ, "COMPOSE_PROFILES": "*", **self.environ},
        )  # fmt: skip
        assert not check or done.returncode == 0, f"compose {' '.join(arguments)}: {done.stderr[-2000:]}"
        return done.stdout + done.stderr

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON; 0 while nobody listens."""
        return _answer(urllib.request.Request(self.url + path))

    def ask(self, **more: Any) -> tuple[int, Any]:
        """One generation."""
        return self.post("/generate", prompt="What is the capital of France?", **more)

    def post(self, path: str, **body: Any) -> tuple[int, Any]:
        """Status and JSON for a body of JSON; 0 while nobody listens."""
        headers = {"content-type": "application/json"}
        return _answer(urllib.request.Request(self.url + path, json.dumps(body).encode(), headers))

    def ready(self) -> bool:
        """Whether a generation would be taken."""
        return self.get("/readyz")[0] == 200

    def readings(self, *lines: str) -> None:
        """What nvidia-smi will say from now on, one line a look, the last for ever."""
        replay, self.lists = self.folder / "replay", self.lists + 1
        (replay / str(self.lists)).write_text("\n".join(lines) + "\n")
        (replay / "next").write_text(str(self.lists))
        (replay / "next").replace(replay / "now")  # at once: a look may be on its way

    def looks(self) -> int:
        """How many times nvidia-smi was asked since `readings`."""
        try:
            return int((self.folder / "replay" / f"{self.lists}.at").read_text())
        except OSError:
            return 0

    def started_at(self) -> str:
        """When the sidecar's container was last started."""
        return docker("inspect", "-f", "{{.State.StartedAt}}", SIDECAR).strip()

    def container(self, service: str) -> str:
        """The id of the service's container."""
        return self.compose("ps", "-q", service).strip()

    def acts(self) -> list[str]:
        """What the engine did to the sidecar's container since the stack is up: restart, kill, die."""
        return (self.folder / "acts").read_text().split()

    def watchdog_said(self) -> list[dict[str, Any]]:
        """The watchdog's log, line by line; AssertionError for a line that is not JSON."""
        done = subprocess.run(
            ["docker", "logs", self.container(WATCHDOG)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        lines = (done.stdout + done.stderr).splitlines()
        return [json.loads(line) for line in lines if line.strip()]


@contextmanager
def _witness(path: Path) -> Iterator[None]:
    """Write the engine's own events into `path`. Asked for afterwards it would have forgotten most: it
    keeps 256, and every look of the watchdog is five."""
    kinds = [part for kind in ("restart", "kill", "die") for part in ("--filter", f"event={kind}")]
    command = ["docker", "events", "--filter", f"container={SIDECAR}", *kinds, "--format", "{{.Action}}"]
    with path.open("w") as sink, subprocess.Popen(command, stdout=sink) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def stack(folder: Path, port: int, *overlays: str, **environ: str) -> Iterator[Stack]:
    """The project with the CPU overlay, the test's own and more; taken down at the end."""
    (folder / "replay").mkdir(parents=True)
    (folder / "replay").chmod(0o777)
    shutil.copy(HERE / "nvidia-smi", folder / "nvidia-smi")
    files = ("compose.yaml", *overlays, "docker/compose.cpu.yaml", "tests/docker/compose.test.yaml")
    # The drain is long enough for the streams of the tests on a machine that is busy with something else.
    own = {"TEST_FOLDER": str(folder), "PORT": str(port), "DRAIN_SECONDS": "120", **environ}
    project = Stack(port, files, folder, own)
    project.readings(LOW)
    try:
        with _witness(folder / "acts"):
            project.compose("up", "-d", "--wait", "--wait-timeout", "240", SIDECAR)
            yield project
    finally:
        project.compose("down", "-v", "-t", "1", "--remove-orphans", check=False)


def _answer(request: urllib.request.Request) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, None
