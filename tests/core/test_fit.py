"""Which cards a child sees, and whether the profile fits them."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.fit import fit, needed_mib, whole_limit_mib
from sidecar.gpu import GpuLook, GpuReading, GpuUnreadable
from sidecar.pinning import child_environment
from sidecar.profiles import Profile
from sidecar.registry import load_registry
from sidecar.settings import DEFAULT_REGISTRY, load

MIB = 1024**2
MEMORY_MIB = 16384
SHIPPED = load_registry(DEFAULT_REGISTRY).profiles
ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def card(index: int, total_mib: int) -> GpuReading:
    return GpuReading(index, "card", f"GPU-{index}abc", 0, total_mib * MIB, None)


def profile(backend: str = "llamacpp", **top: Any) -> Profile:
    block = top.pop("block", {})
    blocks = {"llamacpp": {"model_path": "/m.gguf"}, "transformers": {"sources": ["e"]}}
    fields = {backend: {**blocks[backend], **block}}
    return Profile.model_validate({"name": "p", "backend": backend, "model_id": "m", **fields, **top})


@pytest.mark.parametrize("backend", ["llamacpp", "transformers"])
@pytest.mark.parametrize(
    ("gpu", "environ", "visible"),
    [
        ({}, {}, None),
        ({"device_ids": [2, 0]}, {}, "2,0"),
        ({"device_ids": [2, 0]}, {"CUDA_VISIBLE_DEVICES_OVERRIDE": "1"}, "1"),
        ({"device_ids": [2, 0]}, {"CUDA_VISIBLE_DEVICES_OVERRIDE": " "}, "2,0"),
        ({}, {"CUDA_VISIBLE_DEVICES_OVERRIDE": "GPU-1b2,GPU-3c4"}, "GPU-1b2,GPU-3c4"),
        ({"num_gpus": 0}, {}, ""),
        ({"num_gpus": 0}, {"CUDA_VISIBLE_DEVICES_OVERRIDE": "0"}, "0"),
        ({"device_ids": [2, 0]}, {"DEVICE": "cpu"}, ""),
    ],
)
def test_pinning(backend: str, gpu: dict[str, Any], environ: dict[str, str], visible: str | None) -> None:
    found = child_environment(profile(backend, gpu=gpu), load([], environ))
    assert found == (ORDER if visible is None else {**ORDER, "CUDA_VISIBLE_DEVICES": visible})


def test_one_card_by_its_number_for_llama_server() -> None:
    settings = load(["--device", "cuda:1"], {})
    assert child_environment(profile(gpu={"device_ids": [4, 7]}), settings)["CUDA_VISIBLE_DEVICES"] == "7"
    assert child_environment(profile(), settings)["CUDA_VISIBLE_DEVICES"] == "1"
    assert child_environment(profile("transformers"), settings) == ORDER


P106, P104, BIG = card(0, 6077), card(1, 8111), card(0, 24576)


@pytest.mark.parametrize(
    ("name", "cards", "verdict", "why"),
    [
        ("stheno-q4_k_m", (P106,), "fits", "5804 of 6077 MiB"),
        ("stheno-q5_k_m", (P106,), "does not fit", "6579 of 6077 MiB"),
        ("stheno-q6_k", (card(0, 8111),), "fits", "7403 of 8111 MiB"),
        ("qwen3-vl-30b", (BIG,), "does not fit", "20098 of 10752 MiB"),
        ("deepseek-70b-gguf-atlas", (BIG,), "does not fit", "it wants 4 cards, 1 of them here"),
        ("hermes-3-8b-8bit", (), "does not fit", "8bit loading needs a card"),
        ("stheno-q4_k_m", (), "on the CPU", "no card here"),
        ("deepseek-70b-gguf-atlas", (), "does not fit", "no card here; 45510 of 16384 MiB of main memory"),
    ],
)
def test_the_shipped_profiles_on_cards_of_the_seeds(
    name: str, cards: tuple[GpuReading, ...], verdict: str, why: str
) -> None:
    found = fit(SHIPPED[name], load([], {}), cards, MEMORY_MIB)
    assert (found.verdict, found.why) == (verdict, why)


def test_the_budget_and_the_profiles_share_are_limits() -> None:
    small = load(["--vram_budget", "4GiB"], {})
    assert fit(profile(vram_mib=4097), small, (BIG,), MEMORY_MIB).verdict == "does not fit"
    assert fit(profile(vram_mib=4096), small, (BIG,), MEMORY_MIB).verdict == "fits"
    half = profile(vram_mib=3039, gpu={"gpu_memory_fraction": 0.5})
    assert fit(half, load([], {}), (P106,), MEMORY_MIB).why == "3039 of 3038 MiB"


@pytest.mark.parametrize(
    ("gpu", "block", "seen", "budget", "whole_mib"),
    [
        ({}, {}, (BIG,), "4GiB", 4096),
        ({}, {}, GpuUnreadable("no driver"), "4GiB", 4096),
        ({"num_gpus": 2}, {}, GpuUnreadable("no driver"), "4GiB", 8192),
        ({"num_gpus": 2}, {}, (BIG,), "4GiB", 4096),  # llama-server takes the cards that there are
        ({"num_gpus": 2}, {}, (P106, P104), "4GiB", 8192),
        ({"num_gpus": 2}, {"tensor_split": [1, 3]}, (P106, P104), "3GiB", 4096),
        ({"gpu_memory_fraction": 0.5}, {}, (P106,), "10GiB", 3038),
    ],
)
def test_what_all_cards_may_hold_together(
    gpu: dict[str, Any], block: dict[str, Any], seen: GpuLook, budget: str, whole_mib: int
) -> None:
    settings = load(["--vram_budget", budget], {})
    assert whole_limit_mib(profile(gpu=gpu, block=block), settings, seen) == whole_mib


def test_a_model_is_divided_as_it_is_spread() -> None:
    uneven = profile(vram_mib=9000, gpu={"num_gpus": 2}, block={"tensor_split": [1, 2]})
    assert needed_mib(uneven, 2) == (3000, 6000)
    assert fit(uneven, load([], {}), (P106, P104), MEMORY_MIB).why == "3000 of 6077 MiB on each of 2 cards"
    assert (
        fit(profile(vram_mib=9000, gpu={"num_gpus": 2}), load([], {}), (P106, P104), MEMORY_MIB).verdict
        == "fits"
    )
    alone = profile(vram_mib=9000, gpu={"num_gpus": 2}, block={"split_mode": "none"})
    assert fit(alone, load([], {}), (P106, P104), MEMORY_MIB).verdict == "does not fit"


def test_the_override_says_which_card_is_looked_at() -> None:
    made = profile(vram_mib=8000)
    assert (
        fit(made, load([], {"CUDA_VISIBLE_DEVICES_OVERRIDE": "1"}), (P106, P104), MEMORY_MIB).verdict
        == "fits"
    )
    assert (
        fit(made, load([], {"CUDA_VISIBLE_DEVICES_OVERRIDE": "GPU-1a"}), (P106, P104), MEMORY_MIB).verdict
        == "fits"
    )
    assert (
        fit(made, load([], {"CUDA_VISIBLE_DEVICES_OVERRIDE": "0"}), (P106, P104), MEMORY_MIB).verdict
        == "does not fit"
    )
    assert (
        fit(made, load([], {"CUDA_VISIBLE_DEVICES_OVERRIDE": "9"}), (P106,), MEMORY_MIB).verdict
        == "does not fit"
    )
    assert (
        fit(made, load([], {"CUDA_VISIBLE_DEVICES_OVERRIDE": "-1"}), (P106,), MEMORY_MIB).verdict
        == "on the CPU"
    )


@pytest.mark.parametrize("seen", [(P106,), ()])
def test_a_figure_is_the_least_where_more_is_asked_for(seen: tuple[GpuReading, ...]) -> None:
    def verdict(vram_mib: int) -> str:
        return fit(profile(vram_mib=vram_mib), load([], {}), seen, 6077, at_least=True).verdict

    assert (verdict(6077), verdict(6078)) == ("not known", "does not fit")


def test_what_nobody_has_said_is_not_known() -> None:
    assert fit(profile(), load([], {}), (), MEMORY_MIB).verdict == "not known"
    assert fit(profile(), load([], {}), (BIG,), MEMORY_MIB).verdict == "not known"
    assert (
        fit(profile(vram_mib=1), load([], {}), GpuUnreadable("no driver"), MEMORY_MIB).verdict == "on the CPU"
    )


def test_without_a_card_main_memory_is_the_limit_or_what_the_budget_gives_of_it() -> None:
    small = load([], {"MEMORY_BUDGET": "4GiB"})
    for backend in ("llamacpp", "transformers"):
        assert fit(profile(backend, vram_mib=4097), small, (), 8192).verdict == "does not fit"
        assert fit(profile(backend, vram_mib=4096), small, (), 8192).verdict == "on the CPU"
        assert fit(profile(backend, vram_mib=8193), load([], {}), (), 8192).verdict == "does not fit"
    told = load([], {"DEVICE": "cpu"})
    found = fit(profile(vram_mib=8193), told, (BIG,), 8192)
    assert found.why == "told to use no card; 8193 of 8192 MiB of main memory"
