"""The paths that only a card has: flash attention on pages, and the decode step as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sidecar.worker import load as loading
from tests.engines.conftest import config
from tests.engines.driver import Driver

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA card here"),
]

PROMPTS = {f"r{length}": [7 * length % 250 + i % 5 for i in range(length)] for length in (1, 5, 40, 130)}
# float16 sums in another order: near ties of random weights may fall differently later on.
FIRST = 8


def answers(folder: Path, **changes: object) -> dict[str, list[int]]:
    model = loading.load(config(folder, device="cuda", **changes), lambda *_: None)
    driver = Driver(model)
    for id, prompt in PROMPTS.items():
        driver.begin(id, prompt, max_tokens=24, logprobs=1)
    driver.finish()
    return {id: driver.ids(id) for id in PROMPTS}


@pytest.fixture(scope="module")
def cuda_folder(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint("llama", hidden_size=256, head_dim=64)


def test_graphs_change_no_token(cuda_folder: Path) -> None:
    assert answers(cuda_folder, cuda_graphs=True) == answers(cuda_folder, cuda_graphs=False)


def test_a_batch_changes_no_token_of_a_request(cuda_folder: Path) -> None:
    together = answers(cuda_folder)
    model = loading.load(config(cuda_folder, device="cuda"), lambda *_: None)
    for id, prompt in PROMPTS.items():
        driver = Driver(model)
        driver.begin(id, prompt, max_tokens=24, logprobs=1)
        driver.finish()
        assert driver.ids(id)[:FIRST] == together[id][:FIRST]


def test_flash_on_pages_agrees_with_sdpa(cuda_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flash = answers(cuda_folder)
    monkeypatch.setattr(loading, "_has_varlen", lambda _: False)
    plain = answers(cuda_folder)
    assert {id: ids[:FIRST] for id, ids in flash.items()} == {id: ids[:FIRST] for id, ids in plain.items()}
