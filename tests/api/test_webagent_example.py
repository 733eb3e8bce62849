"""The example client: every key of WebAgent's YAML is used, or refused by name."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from examples.webagent.llm_client import SERVERS, Answer, BadConfig, LLMConfig, SelfHostedLLM, load
from sidecar.settings_table import TABLE
from tests.e2e.program import until
from tests.fakes.engine import ANSWER, ScriptedEngine
from tests.fakes.hosted_provider import hosted_provider
from tests.fakes.live import Live, live_server

EXAMPLE = Path(__file__).parents[2] / "examples" / "webagent"
# As WebAgent's own documentation has it.
WHOLE: dict[str, Any] = {
    "provider": "self",
    "temperature": 0.7,
    "timeout_seconds": 60,
    "max_tokens": 4096,
    "retry_attempts": 3,
    "batch_size": 10,
    "self_hosted_url": "http://localhost:8080",
    "model_path": "/path/to/your/model",
}
CLIENTS = {key: value for key, value in WHOLE.items() if key != "model_path"}


def written(folder: Path, llm: Any) -> Path:
    path = folder / "dev.yaml"
    path.write_text(yaml.safe_dump({"llm": llm}))
    return path


def test_the_servers_key_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"llm\.model_path is the server's: start it with MODEL_PATH"):
        load(written(tmp_path, WHOLE), {})
    assert load(written(tmp_path, CLIENTS), {}) == LLMConfig()


def test_the_shipped_file_can_be_used() -> None:
    assert set(yaml.safe_load((EXAMPLE / "dev.yaml").read_text())["llm"]) == set(CLIENTS)
    assert load(EXAMPLE / "dev.yaml", {}).self_hosted_url == "http://localhost:8000"


def test_the_two_variables_go_before_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, CLIENTS | {"provider": "openai"})
    environ = {"WEBAGENT_LLM_PROVIDER": "self", "SELF_HOSTED_LLM_URL": "http://gpu:9000"}
    assert load(path, environ).self_hosted_url == "http://gpu:9000"
    with pytest.raises(BadConfig, match=r"llm\.provider: 'openai' can not be used; accepted: self"):
        load(path, {"WEBAGENT_LLM_PROVIDER": " "})
    with pytest.raises(BadConfig, match="'together' can not be used"):
        load(path, {"WEBAGENT_LLM_PROVIDER": "together"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", "warm"), ("temperature", 2.1), ("temperature", True), ("timeout_seconds", 301),
        ("timeout_seconds", 0), ("max_tokens", 0), ("max_tokens", 1.5), ("retry_attempts", -1),
        ("batch_size", 0), ("self_hosted_url", "localhost:8080"), ("self_hosted_url", None), ("top_p", 1),
    ],
)  # fmt: skip
def test_what_can_not_be_used_is_named(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(BadConfig, match=rf"llm\.{key}"):
        load(written(tmp_path, CLIENTS | {key: value}), {})


def test_a_file_without_the_keys_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"dev\.yaml"):
        load(written(tmp_path, None), {})


def test_what_is_said_reaches_the_engine(live: Live) -> None:
    config = LLMConfig(temperature=0.25, timeout_seconds=33, max_tokens=77, self_hosted_url=live.url + "/")
    assert SelfHostedLLM(config).ask("hi", system="be brief") == Answer(ANSWER, "self")
    request = live.engine.requests[-1]
    assert (request.sampling.temperature, request.deadline_s, request.max_tokens) == (0.25, 33, 77)
    assert [message.content for message in request.messages] == ["be brief", "hi"]


@pytest.mark.parametrize("retry_attempts", [0, 1])
def test_attempts_are_as_many_as_are_said(retry_attempts: int) -> None:
    with hosted_provider("status:503") as busy:
        config = LLMConfig(retry_attempts=retry_attempts, self_hosted_url=busy.url.removesuffix("/v1"))
        with pytest.raises(openai.InternalServerError):
            SelfHostedLLM(config).ask("hi")
        assert len(busy.asked) == 1 + retry_attempts


def test_a_batch_is_as_many_as_are_asked_at_once() -> None:
    engine = ScriptedEngine()
    with live_server(engine) as own, ThreadPoolExecutor(1) as pool:
        llm = SelfHostedLLM(LLMConfig(batch_size=2, self_hosted_url=own.url))
        answers = pool.submit(llm.ask_all, ["[hold:1][say:one]", "[hold:1][say:two]", "[say:three]"])
        until(lambda: len(engine.held) == 2, "two are asked")
        assert len(engine.requests) == 2
        engine.release()
        assert [answer.text for answer in answers.result(30)] == ["one", "two", "three"]


def test_the_readmes_table_has_each_key_and_whose_it_is() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \| (client|server) \|", (EXAMPLE / "README.md").read_text())
    used = [(field.name, "client") for field in fields(LLMConfig)]
    assert rows == [*used, *((key, "server") for key in SERVERS)]
    assert {key for key, _ in rows} == set(WHOLE)


def test_what_is_the_servers_is_a_setting_of_it() -> None:
    flags = {f"--{row.flag}" for row in TABLE if row.flag} | {name for row in TABLE for name in row.names}
    named = re.findall(r"--\w+|\bMODEL_PATH\b", (EXAMPLE / "README.md").read_text() + SERVERS["model_path"])
    assert {"--model_path", "--host", "--port", "--load_in_8bit", "--load_in_4bit"} <= set(named) <= flags
