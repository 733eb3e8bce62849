"""The random 4-bit checkpoint of the card's benchmark, in small, on a CPU: it loads and it generates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sidecar.worker import load as loading
from sidecar.worker.model import Model
from tests.engines.conftest import config
from tools.bench import gpu
from tools.bench.gptq_shape import GROUP, SCALE, TINY, write
from tools.bench.inprocess import Engine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = write(tmp_path_factory.mktemp("gptq"), TINY)
    return loading.load(config(folder), lambda *_: None)


def test_it_generates_in_the_loop(model: Model) -> None:
    prefill_s, decode_s = Engine(model, batch_tokens=32).generate([[1, 2, 3], list(range(40))], 6)
    assert prefill_s > 0.0
    assert decode_s > 0.0


def test_the_packed_numbers_are_what_they_stand_for(model: Model) -> None:
    """The kernel's product is that of weights (q - 8) * scale."""
    layer = model.network.model.layers[0].mlp.down_proj
    assert "gptq" in dict(model.about)["weights"]
    outputs = layer(torch.eye(TINY.intermediate)).detach()
    steps = outputs / SCALE
    assert steps.min() >= -8.1
    assert steps.max() <= 7.1
    assert torch.allclose(steps, steps.round(), atol=0.05)
    assert abs(float(outputs.std()) - 0.02) < 0.002
    assert TINY.intermediate % GROUP == 0


def test_a_step_reads_the_weights_without_the_input_embeddings(model: Model) -> None:
    no_context, some = gpu.step_bytes(model, 1, 0), gpu.step_bytes(model, 2, 10)
    assert some - no_context == 2 * 10 * 2 * TINY.layers * TINY.kv_heads * TINY.head_dim * 4
    assert no_context >= TINY.vocabulary * TINY.hidden * 2


def test_the_whole_measurement_on_a_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu, "WORK", tmp_path)
    monkeypatch.setattr(gpu, "COPY_BYTES", 1 << 20)
    plan = gpu.Plan(TINY, streams=(1, 2), prompt_tokens=16, new_tokens=4, device="cpu", graphs=(False,))
    found = gpu.measure(plan)
    assert [run["streams"] for run in found["runs"]] == [1, 2]
    assert all(run["tokens_per_s"] > 0 and run["limit_tokens_per_s"] > 0 for run in found["runs"])


def test_without_a_card_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main() == 0
    assert capsys.readouterr().out.startswith("gpu-test: skipped, ")
