"""`python -m tools.bench.gpu`: the engine's tests, its speed and its memory on an NVIDIA card.

Skipped, and said so, where there is none.
"""

from __future__ import annotations

import gc
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sidecar.worker import load as worker_model
from sidecar.worker.messages import WorkerConfig
from sidecar.worker.model import Model
from tools.bench import kept, report
from tools.bench.__main__ import DOCUMENT, RESULTS, WORK
from tools.bench.card_report import card_part
from tools.bench.figures import rounded
from tools.bench.gptq_shape import LLAMA_8B, Shape, write
from tools.bench.inprocess import Engine
from tools.bench.servers import MIB, ROOT
from tools.bench.show import progress

COPY_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured. The defaults are for a card; smaller ones try the code on a CPU."""

    shape: Shape = LLAMA_8B
    streams: Sequence[int] = (1, 8, 32)
    prompt_tokens: int = 128
    new_tokens: int = 128
    device: str = "cuda"
    graphs: Sequence[bool] = (True, False)


def main() -> int:
    """Tests first, then the figures; 1 where a test failed or the budget was not kept. 0 without a card."""
    if not torch.cuda.is_available():
        print(f"gpu-test: skipped, torch {torch.__version__} sees no NVIDIA card on this machine")
        return 0
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "tests/engines"], cwd=ROOT, check=False
    )
    found = measure(Plan())
    write_down(found)  # a soak that ends badly takes no figure with it
    wanted = kept.Wanted()
    with progress(len(wanted.streams) + 1) as show:
        found["kept"] = kept.measure(wanted, WORK / "gptq", show)
    write_down(found)
    return 1 if tests.returncode or not kept.is_kept(found["kept"]) else 0


def write_down(found: dict[str, Any], results: Path = RESULTS, document: Path = DOCUMENT) -> None:
    """Put the card's part beside what was measured without one, in both files, and show it."""
    written = json.loads(results.read_text("utf-8")) | {"gpu": found}
    results.write_text(json.dumps(written, indent=1) + "\n", "utf-8")
    report.write(document, written)
    print(card_part(found))


def measure(plan: Plan) -> dict[str, Any]:
    """The card, its copy bandwidth, and a run for each number of streams, graphs on and off."""
    with progress(2 + len(plan.graphs) * len(plan.streams)) as show:
        show(f"write {plan.shape.name}")
        folder = write(WORK / "gptq", plan.shape)
        show("measure the copy bandwidth")
        bandwidth = copy_bytes_per_s(plan.device)
        runs = []
        for graphs in plan.graphs:
            model = worker_model.load(_config(plan, str(folder), graphs), lambda *_: None)
            engine = Engine(model, batch_tokens=2048)
            for streams in plan.streams:
                show(f"{streams} streams, graphs {'on' if graphs else 'off'}")
                runs.append(_run(plan, engine, streams, bandwidth) | {"graphs": graphs})
            del engine, model
            _forget(plan.device)
    return {
        "card": torch.cuda.get_device_name() if plan.device == "cuda" else "CPU",
        "model": plan.shape.name,
        "prompt_tokens": plan.prompt_tokens,
        "new_tokens": plan.new_tokens,
        "copy_gb_per_s": rounded(bandwidth / 1e9),
        "runs": runs,
    }


def copy_bytes_per_s(device: str) -> float:
    """Bytes read and written in a second by the fastest of some large copies."""
    size = COPY_BYTES
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target, best = torch.empty_like(source), 0.0
    for _ in range(8):
        _wait(device)
        began = time.perf_counter()
        target.copy_(source)
        _wait(device)
        best = max(best, 2 * size / (time.perf_counter() - began))
    return best


def step_bytes(model: Model, streams: int, context: int) -> int:
    """What one decode step has to read: every weight but the input embeddings, and the KV memory."""
    held = (*model.network.parameters(), *model.network.buffers())
    weights = sum(t.numel() * t.element_size() for t in held)
    embeddings = model.network.get_input_embeddings().weight
    keys = model.pool.keys
    per_token = 2 * len(keys) * keys[0][0, 0].numel() * keys[0].element_size()
    return int(weights - embeddings.numel() * embeddings.element_size() + streams * context * per_token)


def _run(plan: Plan, engine: Engine, streams: int, bandwidth: float) -> dict[str, Any]:
    if plan.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    engine.generate(_prompts(plan, streams, "warm-up"), 8)
    prefill_s, decode_s = engine.generate(_prompts(plan, streams, "measured"), plan.new_tokens)
    context = plan.prompt_tokens + plan.new_tokens // 2
    step = step_bytes(engine.model, streams, context)
    peak = torch.cuda.max_memory_reserved() if plan.device == "cuda" else 0
    return {
        "streams": streams,
        "tokens_per_s": rounded(streams * (plan.new_tokens - 1) / decode_s),
        "prefill_tokens_per_s": rounded(streams * plan.prompt_tokens / prefill_s),
        "step_mib": rounded(step / MIB),
        "limit_tokens_per_s": rounded(streams * bandwidth / step),
        "peak_mib": rounded(peak / MIB),
    }


def _prompts(plan: Plan, streams: int, seed: str) -> list[list[int]]:
    made = random.Random(f"{seed} {streams}")
    return [made.choices(range(plan.shape.vocabulary), k=plan.prompt_tokens) for _ in range(streams)]


def _config(plan: Plan, folder: str, graphs: bool) -> WorkerConfig:
    each = plan.prompt_tokens + plan.new_tokens
    most = max(plan.streams)
    return WorkerConfig(
        sources=(folder,), context=each, slots=most, batch_tokens=2048, kv_tokens=most * (each + 256),
        default_max_tokens=plan.new_tokens, device=plan.device, cuda_graphs=graphs,
    )  # fmt: skip


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _forget(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    raise SystemExit(main())
