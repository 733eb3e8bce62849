"""The whole program over an engine that a test kills: `python -m tests.faults.served [flags]`.

What stands between a client and the engine's process is the product's own; only the waits between the
engine's lives, which are seconds there, are what FAULTS_DELAY_S says. FAULTS_ENGINE is `worker` (the
echoing fake, its script in FAULTS_SCRIPT) or `llama` (LLAMA_SERVER_PATH, else the fake one).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry

from sidecar import logs
from sidecar.api import create_app
from sidecar.engines.fetching import Job
from sidecar.engines.llama_launch import Launch
from sidecar.engines.llamaserver import LlamaServerEngine
from sidecar.engines.worker import WorkerEngine
from sidecar.gate import Gate
from sidecar.metrics import Metrics
from sidecar.profiles import Profile
from sidecar.registry import load_registry
from sidecar.serve import Parts, listening, run
from sidecar.service import Service
from sidecar.settings import Settings, load
from sidecar.shelf import ServedModel, only
from sidecar.worker.messages import WorkerConfig
from tests.engines.llama.driving import fake

MODEL = ServedModel("echo", tools=True)
WORKER = Path(__file__).parents[1] / "fakes" / "worker.py"
CONFIG = WorkerConfig(
    sources=("none",), context=512, slots=4, batch_tokens=64, kv_tokens=None, default_max_tokens=64
)


def engine() -> WorkerEngine | LlamaServerEngine:
    """Not started. Dies as often as a test likes."""
    stall_s = float(os.environ.get("FAULTS_STALL_S", "60"))
    wait_s = float(os.environ.get("FAULTS_DELAY_S", "0.05"))

    def delay_s(deaths_at: Sequence[float], now: float) -> float:
        return wait_s

    if os.environ.get("FAULTS_ENGINE", "worker") == "llama":
        return LlamaServerEngine(_launch(), stall_s, delay_s)
    script = os.environ.get("FAULTS_SCRIPT", "").split()
    return WorkerEngine(CONFIG, {}, (sys.executable, str(WORKER), *script), stall_s, delay_s)


def _launch() -> Launch:
    block = {"model_path": "embedded", "parallel": 4, "threads": 1}
    profile = Profile.model_validate({
        "name": "p", "backend": "llamacpp", "model_id": "echo",
        "gpu": {"max_model_len": 1024}, "llamacpp": block,
    })  # fmt: skip
    binary = os.environ.get("LLAMA_SERVER_PATH") or fake()
    return Launch(profile, binary, Job(profile), "cpu")


def parts(settings: Settings) -> Parts:
    """As `sidecar.serve.build` makes them."""
    metrics = Metrics(CollectorRegistry())
    gate = Gate(settings.max_queue, settings.queue_timeout_s, settings.queue_patience_s)
    service = Service(
        only(MODEL, engine()), MODEL, gate, metrics,
        drain_s=settings.drain_s, log_prompts=settings.log_prompts,
    )  # fmt: skip
    app = create_app(service, metrics, api_key=settings.api_key, reached_at=settings.reached_at)
    return Parts(app, service, metrics, load_registry(settings.profiles_path).select(None))


def main() -> int:
    settings = load(sys.argv[1:], os.environ)
    logs.configure(settings.log_format, prompts=settings.log_prompts)
    with (
        listening(settings.host, settings.port) as listener,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(run(settings, parts(settings), listener))


if __name__ == "__main__":
    sys.exit(main())
