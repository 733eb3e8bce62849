"""What a client sends never reaches llama-server as it was sent: named fields alone, written anew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.engines.fetching import Job
from sidecar.engines.llama_launch import Launch
from sidecar.engines.llamaserver import LlamaServerEngine
from sidecar.shelf import ServedModel
from tests.api.asgi import Application, application
from tests.corpus.cases import Case, load
from tests.engines.llama.driving import fake, profile, ready

CANARY = "canary-5d1f"
SAMPLING = {
    "samplers", "temperature", "top_k", "top_p", "min_p", "repeat_penalty", "repeat_last_n",
    "frequency_penalty", "presence_penalty", "logit_bias", "seed", "typical_p", "dynatemp_range",
    "xtc_probability", "dry_multiplier", "top_n_sigma", "mirostat", "ignore_eos",
}  # fmt: skip
STREAMING = {"stream", "cache_prompt", "return_progress"}
ALLOWED = {
    "/tokenize": {"content", "add_special", "parse_special"},
    "/apply-template": {"messages", "tools", "tool_choice", "parallel_tool_calls"},
    "/completion": {
        "prompt", "n_predict", "response_fields", "n_probs", "json_schema", *STREAMING, *SAMPLING,
    },
    "/v1/chat/completions": {
        "messages", "max_tokens", "stream_options", "reasoning_format", "timings_per_token", "logprobs",
        "top_logprobs", "tools", "tool_choice", "parallel_tool_calls", "response_format", *STREAMING,
        *SAMPLING,
    },
}  # fmt: skip
MESSAGE = {"role", "content", "name", "tool_call_id", "tool_calls"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}, "strict": True, CANARY: 1}, CANARY: 1}
HI = {"role": "user", "content": "hi"}


class Recorded:
    """The application over the fake, and what the fake was sent."""

    def __init__(self, served: Application, file: Path) -> None:
        self._served = served
        self._file = file

    def ask(self, path: str, raw: bytes) -> tuple[int, list[dict[str, Any]]]:
        """The status, and what was sent on for it."""
        before = len(self._lines())
        status = self._served.ask(path, raw).status
        return status, [json.loads(line) for line in self._lines()[before:]]

    def _lines(self) -> list[str]:
        return self._file.read_text().splitlines() if self._file.exists() else []


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    file = tmp_path_factory.mktemp("recorded") / "bodies"
    served = profile()
    launch = Launch(served, fake(), Job(served), "cpu", {"FAKE_LLAMA": f"record:{file}"})
    made = LlamaServerEngine(launch, None, lambda *_: None)
    with application([ServedModel("embedded", tools=True)], lambda: made) as found:
        found.runner.run(ready(made))
        yield Recorded(found, file)


def assert_written_anew(sent: list[dict[str, Any]]) -> None:
    for one in sent:
        body = one["body"]
        assert set(body) <= ALLOWED[one["route"]], one["route"]
        for message in body.get("messages", []):
            assert set(message) <= MESSAGE
        assert CANARY not in json.dumps(body)


POSTED = [case for case in load() if case.method == "POST" and not case.wire and not case.setup]


@pytest.mark.parametrize("case", POSTED, ids=[case.name for case in POSTED])
def test_of_every_case_only_named_fields_are_sent_on(recorded: Recorded, case: Case) -> None:
    request = case.request({"MODEL": "embedded", "HOST": "localhost", "TRIP_PORT": "1"})
    status, sent = recorded.ask(case.path, request.partition(b"\r\n\r\n")[2])
    assert_written_anew(sent)
    if status >= 400:
        assert not [one for one in sent if one["route"] in ("/completion", "/v1/chat/completions")]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/chat/completions", {"messages": [HI | {CANARY: 1, "weight": CANARY}]}),
        ("/v1/chat/completions", {"messages": [HI | {CANARY: 1}], "tools": [TOOL], "tool_choice": "auto"}),
    ],
)
def test_what_is_not_understood_goes_no_further(recorded: Recorded, path: str, body: dict[str, Any]) -> None:
    extra = {CANARY: CANARY, "__proto__": {"x": CANARY}, "slots": [CANARY], "n_ctx": CANARY, "user": CANARY}
    status, sent = recorded.ask(path, json.dumps(body | extra | {"metadata": {CANARY: CANARY}}).encode())
    assert status == 200
    assert [one for one in sent if one["route"] in ("/completion", "/v1/chat/completions")]
    assert_written_anew(sent)


def test_the_record_is_kept(recorded: Recorded) -> None:
    """Or the tests above would pass for nothing."""
    _, sent = recorded.ask("/generate", b'{"prompt": "hi", "max_length": 3}')
    assert [one["route"] for one in sent] == ["/tokenize", "/completion"]
    assert sent[1]["body"]["n_predict"] == 3
