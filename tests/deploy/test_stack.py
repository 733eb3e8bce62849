"""What the compose files promise of the stack: which services it is, and what its door is told."""

from __future__ import annotations

import pytest
from door import DoorError, completed, permitted

from tests.deploy.test_compose import GPU_SERVERS, PLAIN, compose, filled


def test_services_come_up_by_name_or_with_their_stack() -> None:
    """Nothing comes up unnamed: the sidecar would take the first card from the stack."""
    by_profile: dict[str, set[str]] = {}
    for name, told in PLAIN.items():
        for profile in told["profiles"]:
            by_profile.setdefault(profile, set()).add(name)
    assert by_profile["sidecar"] == {"llm-sidecar", "vram-watchdog"}
    assert by_profile["stack"] == {*GPU_SERVERS, "litellm", "prometheus", "grafana"}
    hardened = compose("docker/compose.hardened.yaml")["services"]["docker-proxy"]
    assert hardened["profiles"] == ["sidecar"]


def test_the_door_knows_both_servers_with_and_without_a_card() -> None:
    base = compose("docker/litellm/config.yaml")
    for more, name in (
        ({}, "stheno"),
        (compose("docker/compose.cpu.yaml")["services"]["litellm"], "embedded-gguf"),
    ):
        told = filled(PLAIN["litellm"]["environment"] | more.get("environment", {}))
        made = completed(base, told)
        assert [entry["model_name"] for entry in made["model_list"]] == [name, name]
        urls = [entry["litellm_params"]["api_base"] for entry in made["model_list"]]
        assert urls == [f"http://{server}:8080/v1" for server in GPU_SERVERS]
        assert permitted(told)
    with pytest.raises(DoorError, match="LITELLM_MASTER_KEY"):
        permitted(filled(PLAIN["litellm"], PUBLISH_ADDRESS="0.0.0.0")["environment"])


def test_only_the_door_falls_back_and_only_when_told() -> None:
    for name in GPU_SERVERS:
        assert filled(PLAIN[name], FALLBACK="1")["environment"]["FALLBACK"] == ""
    told = filled(PLAIN["litellm"], FALLBACK="1", OPENAI_API_KEY="k", OPENAI_MODEL="m")["environment"]
    made = completed(compose("docker/litellm/config.yaml"), told)
    assert [entry["model_name"] for entry in made["model_list"]][2:] == ["fallback-openai"]


def test_the_stack_is_where_the_documents_say() -> None:
    ports = {name: filled(PLAIN[name])["ports"] for name in ("litellm", "prometheus", "grafana")}
    assert ports == {
        "litellm": ["127.0.0.1:4000:4000"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    assert "./prometheus:/etc/prometheus:ro" in PLAIN["prometheus"]["volumes"]
    assert PLAIN["grafana"]["volumes"][:2] == [
        "./grafana/provisioning:/etc/grafana/provisioning:ro",
        "./grafana/dashboards:/var/lib/grafana/dashboards:ro",
    ]
