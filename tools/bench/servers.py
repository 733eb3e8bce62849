"""The two servers as processes on this machine, with sizes that are equal."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tools.bench.checkpoint import MAX_TOKENS

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024
STOP_GRACE_S = 20.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """What both servers are told: the KV memory, the step and the threads."""

    kv_tokens: int = 20480
    page_tokens: int = 16
    batch_tokens: int = 512
    streams: int = 32
    threads: int = os.cpu_count() or 1


@dataclass(slots=True)
class Server:
    """One running server. `dialect` says how its client asks for greedy or sampled answers."""

    name: str
    dialect: str
    url: str
    process: psutil.Popen
    began: float

    def resident_mib(self) -> float:
        """Resident memory of the process and all its descendants, now."""
        return float(sum(p.memory_info().rss for p in self._tree()) / MIB)

    def peak_mib(self) -> float:
        """The sum of each process' own peak."""
        return sum(_high_water_kib(p.pid) for p in self._tree()) / 1024

    def cpu_s(self) -> float:
        """Processor seconds used so far by the whole tree."""
        return float(sum(t.user + t.system for t in (p.cpu_times() for p in self._tree())))

    def stop(self) -> None:
        """End the whole process group and wait until it is gone."""
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(STOP_GRACE_S)
        except psutil.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _tree(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextlib.contextmanager
def running(name: str, model: Path, sizes: Sizes) -> Iterator[Server]:
    """Start `ours` or `theirs` for the model; stopped when the block is left. Does not wait."""
    port = free_port()
    make = _ours if name == "ours" else _theirs
    command, own_environment = make(model, sizes, port)
    # As many threads for both; how they wait for each other is each server's own affair.
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    common = {"OMP_NUM_THREADS": str(sizes.threads), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    log = (model.parent / f"{name}.log").open("ab")
    began = time.monotonic()
    process = psutil.Popen(
        command, cwd=ROOT, env=inherited | common | own_environment, stdin=subprocess.DEVNULL,
        stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    server = Server(name, name, f"http://127.0.0.1:{port}", process, began)
    try:
        yield server
    finally:
        server.stop()
        log.close()


def _ours(model: Path, sizes: Sizes, port: int) -> tuple[Sequence[str], dict[str, str]]:
    registry = model.parent / "profiles.yaml"
    registry.write_text(_profile(model, sizes))
    command = [
        sys.executable, "server.py", "--profile", "bench", "--model_path", str(model),
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    return command, {"LLM_PROFILES_CONFIG_PATH": str(registry), "THREADS": str(sizes.threads)}


def _profile(model: Path, sizes: Sizes) -> str:
    return f"""\
profiles:
  bench:
    backend: transformers
    model_id: bench
    gpu:
      max_model_len: {MAX_TOKENS}
      max_batch_tokens: {sizes.batch_tokens}
      max_concurrent_requests: {sizes.streams}
    transformers:
      sources: ["{model}"]
      kv_tokens: {sizes.kv_tokens}
      page_tokens: {sizes.page_tokens}
"""


def _theirs(model: Path, sizes: Sizes, port: int) -> tuple[Sequence[str], dict[str, str]]:
    command = [
        str(Path(sys.executable).with_name("transformers")), "serve", str(model),
        "--continuous-batching", "--cb-block-size", str(sizes.page_tokens),
        "--cb-num-blocks", str(sizes.kv_tokens // sizes.page_tokens),
        "--cb-max-batch-tokens", str(sizes.batch_tokens),
        "--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    return command, {}


def free_port() -> int:
    """A port that nobody had a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _high_water_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0
