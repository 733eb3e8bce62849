"""What an 8B takes of the cards that the shipped profiles are made for (seed 001), by its sizes."""

from __future__ import annotations

import pytest

from sidecar import budget
from sidecar.budget import MIB
from sidecar.llama_demand import llama_demand
from sidecar.model_shape import KvLayers, ModelShape
from sidecar.registry import load_registry
from sidecar.settings import DEFAULT_REGISTRY
from sidecar.stored import Model, Stored, StoredTensor

SHIPPED = load_registry(DEFAULT_REGISTRY).profiles
LLAMA_8B = ModelShape("llama", 32, 4096, 14336, 128256, (KvLayers(32, 1024, 1024),), 131072)
P106_MIB, P104_MIB = 6077, 8111


def eight_b(file_mib: float, embedding_mib: float, head_mib: float) -> Model:
    """Of a file of that size; the layers are what is left."""
    each = (file_mib - embedding_mib - head_mib) / 32
    sizes = {"token_embd.weight": embedding_mib, "output.weight": head_mib}
    sizes |= {f"blk.{layer}.ffn_up.weight": each for layer in range(32)}
    tensors = [StoredTensor(name, "12", 1, round(mib * MIB), True) for name, mib in sizes.items()]
    return Model(Stored(tuple(tensors)), LLAMA_8B)


# Sizes of the files, and of the two ends by their types: 4.5, 5.5 and 6.5625 bits for a number.
Q4_K_M, Q5_K_M, Q6_K = eight_b(4692, 282, 411), eight_b(5467, 344, 411), eight_b(6291, 411, 411)


@pytest.mark.parametrize(
    ("quantized", "model", "card_mib"),
    [("q4_k_m", Q4_K_M, P106_MIB), ("q5_k_m", Q5_K_M, P104_MIB), ("q6_k", Q6_K, P104_MIB)],
)
@pytest.mark.parametrize("name", ["stheno", "lumimaid"])
def test_each_fits_the_card_that_its_description_names(
    name: str, quantized: str, model: Model, card_mib: int
) -> None:
    profile = SHIPPED[f"{name}-{quantized}"]
    plan = budget.plan(llama_demand(profile, model, on_gpu=True), card_mib)
    assert plan.full_contexts == profile.slots
    # What is written in the profile stands for the plan where its file is not at hand.
    assert profile.vram_mib == pytest.approx(plan.total_mib, rel=0.07)


def test_the_embeddings_stay_in_main_memory() -> None:
    profile = SHIPPED["stheno-q4_k_m"]
    assert llama_demand(profile, Q4_K_M, on_gpu=True).weights_mib == pytest.approx(4692 - 282, abs=1)
    assert llama_demand(profile, Q4_K_M, on_gpu=False).weights_mib == pytest.approx(4692, abs=1)


def test_only_main_memory_holds_the_program() -> None:
    profile = SHIPPED["stheno-q4_k_m"]
    on_card, on_cpu = (llama_demand(profile, Q4_K_M, on_gpu=on_gpu) for on_gpu in (True, False))
    assert (on_card.process_mib, on_cpu.context_mib) == (0, 0)
    assert on_cpu.process_mib == pytest.approx(26 + 0.6 + 49, abs=1)
