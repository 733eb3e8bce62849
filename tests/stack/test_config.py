"""What LiteLLM is told, from the environment: without LiteLLM."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from door import DoorError, completed, permitted, public_name
from rules import HOSTED, at_fault, in_turn, may_leave, ready_first

from tests.e2e.program import ROOT

BASE = yaml.safe_load((ROOT / "docker" / "litellm" / "config.yaml").read_text())
TWO = {
    "GPU_SERVER_1_URL": "http://gpu-server-1:8080",
    "GPU_SERVER_1_PROFILE": "stheno-q4_k_m",
    "GPU_SERVER_2_URL": "http://gpu-server-2:8080",
    "GPU_SERVER_2_PROFILE": "stheno-q5_k_m",
}
TOGETHER = {"FALLBACK": "1", "TOGETHER_API_KEY": "t" * 20, "TOGETHER_MODEL": "their/model"}
OPENAI = {"OPENAI_API_KEY": "o" * 20, "OPENAI_MODEL": "their-model"}


def made(**more: str) -> dict[str, Any]:
    return completed(BASE, TWO | more)


def hosted(config: dict[str, Any]) -> list[str]:
    return [entry["model_name"] for entry in config["model_list"] if entry["model_name"].startswith(HOSTED)]


@pytest.mark.parametrize(
    ("profile", "name"),
    [
        ("stheno-q4_k_m", "stheno"),
        ("stheno-q6_k", "stheno"),
        ("lumimaid-q4_k_m", "lumimaid"),
        ("any-iq3_xs", "any"),
        ("embedded-gguf", "embedded-gguf"),
        ("qwen3-vl-30b", "qwen3-vl-30b"),
    ],
)
def test_a_model_has_one_name_in_all_its_quantisations(profile: str, name: str) -> None:
    assert public_name(profile) == name


def test_both_servers_answer_to_one_name_and_keep_their_own_profiles() -> None:
    config = made()
    assert [entry["model_name"] for entry in config["model_list"]] == ["stheno", "stheno"]
    asked = [entry["litellm_params"] for entry in config["model_list"]]
    assert [told["model"] for told in asked] == ["openai/stheno-q4_k_m", "openai/stheno-q5_k_m"]
    assert [told["api_base"] for told in asked] == [
        "http://gpu-server-1:8080/v1",
        "http://gpu-server-2:8080/v1",
    ]
    assert config["router_settings"]["routing_strategy"] == "least-busy"


def test_two_models_are_two_names() -> None:
    config = made(GPU_SERVER_2_PROFILE="lumimaid-q4_k_m")
    assert [entry["model_name"] for entry in config["model_list"]] == ["stheno", "lumimaid"]


def test_no_key_is_written_down() -> None:
    config = made(API_KEY="secret-1", **TOGETHER, **OPENAI)
    assert not any(secret in yaml.safe_dump(config) for secret in ("secret-1", "t" * 20, "o" * 20))
    assert config["model_list"][0]["litellm_params"]["api_key"] == "os.environ/API_KEY"


@pytest.mark.parametrize(
    "told",
    [{}, {"FALLBACK": "0", **OPENAI}, {"TOGETHER_API_KEY": "t", "TOGETHER_MODEL": "m"}],
)
def test_nothing_leaves_this_machine_unasked(told: dict[str, str]) -> None:
    config = made(**told)
    assert hosted(config) == []
    assert all(
        entry["litellm_params"]["api_base"].startswith("http://gpu-server-") for entry in config["model_list"]
    )
    targets = [target for way in config["router_settings"]["fallbacks"] for target in way["stheno"]]
    assert [target["model"] for target in targets] == ["stheno"]


def test_together_is_asked_before_openai_and_both_after_our_own() -> None:
    config = made(**TOGETHER, **OPENAI)
    assert hosted(config) == ["fallback-together", "fallback-openai"]
    (way,) = config["router_settings"]["fallbacks"]
    own, *others = way["stheno"]
    assert (own["model"], [other["model"] for other in others]) == (
        "stheno",
        ["fallback-together", "fallback-openai"],
    )
    assert {other["num_retries"] for other in others} == {0}
    assert config["router_settings"]["num_retries"] < BASE["router_settings"]["num_retries"]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"FALLBACK": "yes"}, "FALLBACK='yes'.*1 or 0"),
        ({"FALLBACK": "1"}, "neither TOGETHER_API_KEY nor OPENAI_API_KEY"),
        ({"FALLBACK": "1", "OPENAI_API_KEY": "o"}, "OPENAI_MODEL is not"),
        (TOGETHER | {"FALLBACK_TIMEOUT": "1m"}, r"FALLBACK_TIMEOUT='1m'.*whole seconds from 1 to 400"),
        (TOGETHER | {"FALLBACK_TIMEOUT": "0"}, "FALLBACK_TIMEOUT='0'"),
        (TOGETHER | {"FALLBACK_TIMEOUT": "401"}, "FALLBACK_TIMEOUT='401'"),
        (TOGETHER | {"FALLBACK_TIMEOUT": "000000060999"}, "FALLBACK_TIMEOUT='000000060999'"),
        ({"GPU_SERVER_1_URL": ""}, "no server behind this door"),
        ({"GPU_SERVER_2_PROFILE": ""}, "GPU_SERVER_2_PROFILE is not"),
    ],
)
def test_what_can_not_be_used_is_named(told: dict[str, str], words: str) -> None:
    with pytest.raises(DoorError, match=words):
        made(**told)


@pytest.mark.parametrize("address", ["", "127.0.0.1", "[::1]", "localhost"])
def test_this_machine_needs_no_key(address: str) -> None:
    assert permitted({"PUBLISH_ADDRESS": address})


@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.1.5", "[::]", "cards.lan"])
def test_others_get_in_with_a_key_only(address: str) -> None:
    with pytest.raises(DoorError, match=r"no LITELLM_MASTER_KEY"):
        permitted({"PUBLISH_ADDRESS": address})
    assert permitted({"PUBLISH_ADDRESS": address, "LITELLM_MASTER_KEY": "sk-" + "x" * 32}) == {}


def test_who_is_ready_is_asked_first_and_everybody_when_nobody_is() -> None:
    both = [{"model_info": {"id": name}} for name in ("one", "two")]
    assert ready_first(both, {"one"}) == both[1:]
    assert ready_first(both, {"one", "two"}) == both


def test_what_comes_at_once_is_spread() -> None:
    both = [{"model_info": {"id": name}} for name in ("one", "two")]
    assert [in_turn(both, turn)[0] for turn in range(4)] == both * 2
    assert in_turn(both, 1) == both[::-1]
    assert in_turn([], 3) == []


def failed(kind: str, group: str = "stheno") -> dict[str, str]:
    return {"exception_type": kind, "model_group": group}


def test_a_request_that_was_refused_is_asked_of_nobody_else() -> None:
    assert at_fault([failed("InternalServerError"), failed("BadRequestError")])
    assert at_fault([failed("Timeout")])
    assert not at_fault([failed("RateLimitError")])
    assert not at_fault([])


def test_what_a_hosted_provider_refuses_is_asked_of_the_next() -> None:
    ours = failed("InternalServerError")
    assert not at_fault([ours, failed("AuthenticationError", "fallback-together")])
    assert at_fault([failed("BadRequestError"), failed("RateLimitError", "fallback-together")])


def test_a_hosted_provider_that_is_silent_is_left_after_a_while() -> None:
    for told, seconds in (("", 60), ("7", 7)):
        config = made(**TOGETHER, FALLBACK_TIMEOUT=told)
        (asked,) = [e["litellm_params"] for e in config["model_list"] if e["model_name"].startswith(HOSTED)]
        assert (asked["timeout"], asked["stream_timeout"]) == (seconds, seconds)


def test_a_hosted_provider_is_asked_after_ours_and_so_often_an_hour() -> None:
    ours = [failed("InternalServerError")]
    assert may_leave(ours, [], per_hour=1, now=0.0)
    assert not may_leave(ours, [0.0], per_hour=1, now=3599.0)
    assert may_leave(ours, [0.0], per_hour=1, now=3600.0)
    assert not may_leave([], [], per_hour=1, now=0.0)
    assert not may_leave([failed("InternalServerError", "fallback-together")], [], per_hour=1, now=0.0)
