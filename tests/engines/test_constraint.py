"""Answers that must be JSON, or calls: every one that ends validates, and nobody else notices."""

from __future__ import annotations

import json
import time
from typing import Any

import jsonschema
import pytest
import torch

from sidecar.errors import BadRequest, Unsupported
from sidecar.generation import Function, GenerationRequest, JsonFormat, Sampling, Tools
from sidecar.schema_limits import check_enforced, check_limits
from sidecar.worker import constraint, sampler
from sidecar.worker.constraint import Grammars
from sidecar.worker.messages import prepare
from sidecar.worker.model import Model
from tests.engines.driver import Driver
from tests.engines.schemas import HOSTILE, PERSON, SMALL, WORD, closed

WILD = [Sampling(temperature=1.5, seed=seed) for seed in range(3)]
CALL = "<tool_call>\n"
END = "\n</tool_call>"
WEATHER = Function(
    "get_weather", "", closed({"city": WORD, "days": {"type": "integer", "maximum": 9}}, "days")
)
TIME = Function("get_time", "", {"properties": {}, "additionalProperties": False})


@pytest.fixture
def model(model: Model) -> Model:
    """The tiny Llama, with an end of turn: without one no answer would ever be complete."""
    end = int(model.tokens.backend.token_to_id("<|im_end|>"))
    model.eos = frozenset([end])
    model.grammars = Grammars(model.tokens.backend, model.tokens.vocabulary, [end])
    return model


def answers(model: Model, count: int = 3, max_tokens: int = 200, **request: Any) -> list[str]:
    """The texts of those answers that came to their end, of `count` at random."""
    driver = Driver(model)
    for index in range(count):
        wild = Sampling(temperature=1.5, seed=index)
        driver.begin(str(index), [9, 8, index], max_tokens, wild, **request)
    driver.finish()
    ended = [str(i) for i in range(count) if driver.outputs(str(i))[-1].finish == "stop"]
    assert all(driver.released(str(i)).code is None for i in range(count))
    return [driver.text(id) for id in ended]


@pytest.mark.parametrize("schema", SMALL.values(), ids=SMALL)
def test_what_a_schema_describes(model: Model, schema: dict[str, Any]) -> None:
    check_limits(schema, "x")
    check_enforced(schema, "x")
    found = answers(model, format=JsonFormat(schema))
    assert found
    for text in found:
        jsonschema.validate(json.loads(text), schema)


def test_any_object(model: Model) -> None:
    closing = tuple((int(model.tokens.backend.token_to_id(c)), 9.0) for c in ('"', "}", "]"))
    driver = Driver(model)
    for index in range(6):
        wild = Sampling(temperature=1.5, seed=index, logit_bias=closing)
        driver.begin(str(index), [9, 8, index], 200, wild, format=JsonFormat())
    driver.finish()
    ended = [str(i) for i in range(6) if driver.outputs(str(i))[-1].finish == "stop"]
    assert ended
    assert all(isinstance(json.loads(driver.text(id)), dict) for id in ended)


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=0.0), Sampling(top_k=5), Sampling(min_p=0.3)], ids=str
)
def test_however_a_token_is_chosen(model: Model, sampling: Sampling) -> None:
    """Biases and penalties come before: even a token that is wanted most does not come where it may not."""
    pushed = Sampling(**{**_fields(sampling), "logit_bias": ((65, 100.0),), "repetition_penalty": 1.3})
    driver = Driver(model)
    driver.begin("x", [1, 2, 3], 60, pushed, format=JsonFormat(SMALL["range"]))
    driver.finish()
    jsonschema.validate(json.loads(driver.text("x")), SMALL["range"])


def _fields(sampling: Sampling) -> dict[str, Any]:
    return {name: getattr(sampling, name) for name in Sampling.__slots__}


def test_choices_go_their_own_ways(model: Model) -> None:
    driver = Driver(model)
    driver.begin(
        "x", [1, 2, 3], 100, Sampling(temperature=1.5, seed=4), n=4, format=JsonFormat(SMALL["length"])
    )
    driver.finish()
    texts = {driver.text("x", choice) for choice in range(4)}
    assert len(texts) == 4
    for text in texts:
        jsonschema.validate(json.loads(text), SMALL["length"])


def test_free_requests_beside_it_say_what_they_always_say(model: Model) -> None:
    alone = Driver(model)
    alone.begin("free", [5, 6, 7], 40, logprobs=0)
    alone.finish()
    mixed = Driver(model)
    for index, wild in enumerate(WILD):
        mixed.begin(f"held {index}", [4, index], 60, wild, format=JsonFormat(PERSON))
        mixed.begin(f"free {index}", [5, 6, 7], 40, logprobs=0)
    mixed.finish()
    for index in range(len(WILD)):
        assert mixed.ids(f"free {index}") == alone.ids("free")


def test_log_probabilities_are_the_models_own(model: Model) -> None:
    """Before the grammar: what the model wanted, not what it was let."""
    driver = Driver(model)
    driver.begin("x", [1, 2, 3], 20, format=JsonFormat(), logprobs=1)
    driver.finish()
    (first, *_) = driver.outputs("x")[0].logprobs
    assert first.token == "{"
    assert first.top[0][0] != "{"
    assert first.logprob < first.top[0][2]


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("only", [None, "get_time"])
def test_a_call_that_must_be(model: Model, parallel: bool, only: str | None) -> None:
    tools = Tools((WEATHER, TIME), "required", only, parallel)
    found = answers(model, 8, tools=tools)
    assert found
    for text in found:
        calls = text.split(f"{END}\n{CALL}")
        assert len(calls) == 1 or parallel
        assert text.startswith(CALL)
        assert text.endswith(END)
        for body in text.removeprefix(CALL).removesuffix(END).split(f"{END}\n{CALL}"):
            call = json.loads(body)
            offered = {f.name: {"type": "object", **f.parameters} for f in tools.functions}
            assert only in (None, call["name"])
            jsonschema.validate(call["arguments"], offered[call["name"]])


@pytest.mark.parametrize("schema", HOSTILE.values(), ids=HOSTILE)
def test_what_a_hostile_schema_costs_is_bounded(model: Model, schema: dict[str, Any]) -> None:
    """In seconds of this thread, which the neighbours on the machine do not lengthen."""
    check_limits(schema, "x")
    check_enforced(schema, "x")
    words = constraint.words_of(model.tokens.vocabulary, 1)[0]
    began = time.thread_time()
    try:
        found = model.grammars.constraint(prepare(GenerationRequest("x", "x", format=JsonFormat(schema))))
    except BadRequest:
        found = None
    assert time.thread_time() - began < 2.0
    for _ in range(100):
        if found is None:
            break
        began = time.thread_time()
        going = found.allow(words)
        assert time.thread_time() - began < 0.25
        if not going:
            assert isinstance(found.error, BadRequest)
            break
        found.accept(_last(words))


def _last(words: constraint.Words) -> int:
    (allowed,) = torch.from_numpy(words).view(torch.uint8).nonzero(as_tuple=True)
    byte = int(allowed[-1])
    bits = int(words.view("uint8")[byte])
    return byte * 8 + bits.bit_length() - 1


def test_a_grammar_that_stops_ends_its_request_alone(model: Model) -> None:
    driver = Driver(model)
    driver.begin(
        "held", [1, 2], 400, Sampling(temperature=1.5, seed=1), format=JsonFormat(HOSTILE["all alike"])
    )
    driver.begin("free", [5, 6, 7], 40)
    driver.finish()
    released = driver.released("held")
    assert (released.code, released.param) == ("invalid_value", "response_format")
    assert driver.outputs("free")[-1].finish == "length"
    assert driver.loop.blocks.used == 0


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 5, "maximum": 4},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"oneOf": [{"type": "object"}, {"type": "object"}]},
    ],
    ids=str,
)
def test_what_contradicts_itself_is_refused(model: Model, schema: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="response_format"):
        model.grammars.constraint(prepare(GenerationRequest("x", "x", format=JsonFormat(schema))))


def test_a_model_without_an_end_can_not_be_held(model: Model) -> None:
    without = Grammars(model.tokens.backend, model.tokens.vocabulary, [])
    assert without.constraint(prepare(GenerationRequest("x", "x"))) is None
    with pytest.raises(Unsupported, match="can not be constrained"):
        without.constraint(prepare(GenerationRequest("x", "x", format=JsonFormat())))


def test_rows_keep_only_what_their_grammar_allows(model: Model) -> None:
    width = model.tokens.vocabulary
    digits = prepare(GenerationRequest("x", "x", format=JsonFormat({"enum": [1, 2]})))
    held = model.grammars.constraint(digits)
    rows = [
        sampler.Row(Sampling(temperature=0.0), 0),
        sampler.Row(Sampling(temperature=0.0), 0, constraint=held),
    ]
    logits = torch.zeros(2, width)
    logits[:, 7] = 5.0
    free, kept = sampler.choose(logits, rows)
    assert free == 7
    assert model.tokens.backend.decode([kept]) in "12"
    assert logits[0].isfinite().all()
    assert int(logits[1].isfinite().sum()) == 2
