"""What quantising takes, what is refused before it, and how long it goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigError, NoMemoryNow, StartError
from sidecar.worker import gptq_plan
from sidecar.worker.gptq_plan import Needs, check_room, kept_name, needs, no_leave, shape, time_left

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16", "hidden_size": 4096,
    "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
    "num_hidden_layers": 32, "vocab_size": 128256,
}  # fmt: skip


def eight_b(group_size: int = 128, **changes: object) -> gptq_plan.Shape:
    return shape({**LLAMA_8B, **changes}, "owner/model", group_size)


def test_the_shape_of_an_8b_model() -> None:
    found = eight_b()
    assert found.layers * found.layer_weights == 6_979_321_856  # 8.03 billion with the embeddings
    assert found.embedding_weights == 2 * 128256 * 4096
    assert eight_b(tie_word_embeddings=True).embedding_weights == 128256 * 4096
    assert eight_b(head_dim=64).queries == 32 * 64
    assert found.rows * gptq_plan.ROW_TOKENS == 8 * 14336


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"quantization_config": {"quant_method": "awq"}}, "quantised already (awq)"),
        ({"architectures": ["MambaForCausalLM"]}, "is a MambaForCausalLM"),
        ({"architectures": None}, "is a none"),
        ({"dtype": "float8_e4m3fn"}, "stored as float8_e4m3fn"),
        ({"dtype": None, "torch_dtype": "int8"}, "stored as int8"),
        ({"hidden_size": None}, "no usable sizes"),
        ({"num_attention_heads": 0}, "no usable sizes"),
        (
            {"intermediate_size": 14336 + 64},
            "14400 inputs, which groups of 128 do not divide; accepted for it: 32, 64.",
        ),
        (
            {"intermediate_size": 14336 + 8},
            "14344 inputs, which groups of 128 do not divide; accepted for it: none",
        ),
    ],
)
def test_what_can_not_be_quantised_is_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        eight_b(**changes)
    assert "owner/model" in refused.value.message
    assert words in refused.value.message
    assert "\n" not in refused.value.message


def test_an_8b_model_is_quantised_inside_the_default_budget() -> None:
    on_card = needs(eight_b(), 4, 128, on_cuda=True)
    assert on_card.device_mib < 10752 * 0.92
    # What such checkpoints weigh on the hub: 5.7 GB.
    assert on_card.result_mib == pytest.approx(5.73e9 / 2**20, rel=0.03)
    assert on_card.disk_mib == 2 * on_card.result_mib


def test_without_a_card_its_work_is_in_main_memory() -> None:
    on_card, on_cpu = (needs(eight_b(), 4, 128, on_cuda=cuda) for cuda in (True, False))
    assert on_cpu.device_mib == 0
    assert on_cpu.memory_mib > on_card.memory_mib - gptq_plan.CUDA_PROCESS_MIB


@given(st.sampled_from((32, 64, 128)), st.booleans())
def test_more_bits_and_smaller_groups_take_more_disk(group_size: int, on_cuda: bool) -> None:
    four, eight = (needs(eight_b(group_size), bits, group_size, on_cuda=on_cuda) for bits in (4, 8))
    assert four.disk_mib < eight.disk_mib
    assert four.disk_mib <= needs(eight_b(32), 4, 32, on_cuda=on_cuda).disk_mib


ROOM = {"download_mib": 0.0, "free_disk_mib": 900.0, "free_memory_mib": 900.0, "budget_mib": 900.0}


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({}, None, ""),
        ({"free_disk_mib": 199.0}, ConfigError, "takes 200 MiB of disk (200 for the result"),
        ({"download_mib": 701.0}, ConfigError, "takes 901 MiB of disk (701 to download and 200"),
        ({"free_memory_mib": 399.0}, NoMemoryNow, "about 400 MiB of main memory; 399 are free"),
        ({"budget_mib": 300.0}, ConfigError, "about 300 MiB of the card, more than 276 (92% of"),
        ({"budget_mib": None}, None, ""),
    ],
)
def test_no_room_is_one_line_with_the_figures(
    changes: dict[str, float], kind: type[StartError] | None, words: str
) -> None:
    taken = Needs(result_mib=100.0, disk_mib=200.0, memory_mib=400.0, device_mib=300.0)
    if kind is None:
        check_room("m", taken, **{**ROOM, **changes})
        return
    with pytest.raises(kind) as refused:
        check_room("m", taken, **{**ROOM, **changes})
    assert words in refused.value.message
    assert "\n" not in refused.value.message


def test_a_model_that_no_card_takes_part_in_needs_no_budget() -> None:
    check_room("m", Needs(1.0, 1.0, 1.0, 0.0), **{**ROOM, "budget_mib": 0.1})


@pytest.mark.parametrize(
    ("done", "elapsed_s", "text"),
    [
        (0.0, 100.0, ""),
        (1.0, 100.0, ""),
        (0.5, 40.0, ", 40 s left"),
        (0.25, 240.0, ", 12 min left"),
        (0.1, 3600.0, ", 9.0 h left"),
    ],
)
def test_time_left(done: float, elapsed_s: float, text: str) -> None:
    assert time_left(done, elapsed_s) == text


@given(st.floats(0.01, 0.98), st.floats(1, 1e6))
def test_the_further_it_is_the_less_is_left(done: float, elapsed_s: float) -> None:
    def seconds(text: str) -> float:
        number, unit = text.removeprefix(", ").split()[:2]
        return float(number) * {"s": 1, "min": 60, "h": 3600}[unit]

    now = seconds(time_left(done, elapsed_s))
    assert seconds(time_left(done + 0.01, elapsed_s)) <= now * 1.01 + 30
    assert now == pytest.approx(elapsed_s * (1 - done) / done, rel=0.35, abs=1)


def test_models_revisions_bits_and_groups_are_kept_apart() -> None:
    names = {
        kept_name(model, revision, bits, group)
        for model in ("a/b", "a/c") for revision in ("main", "v1/x") for bits in (4, 8) for group in (32, 128)
    }  # fmt: skip
    assert len(names) == 16
    assert not any("/" in name for name in names)


def test_without_leave_three_commands_are_named() -> None:
    said = no_leave("owner/model@0123456").message
    assert "\n" not in said
    for command in (
        "`MODEL_ID=",
        "`llm-sidecar quantize owner/model ",
        "`LLM_PROFILE_NAME=hermes-3-8b-q4_k_m",
    ):
        assert command in said
