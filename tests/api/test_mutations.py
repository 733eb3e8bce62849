"""Each valid request x (drop, null, swap the type, duplicate, nest, huge), for every field, nested ones too.

Whatever comes of it: never a 500, and every refusal in the one form.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from sidecar.api.schema import ChatBody, CompletionBody, EmbeddingsBody, GenerateBody, ModelBody
from sidecar.shelf import ServedModel
from tests.api.asgi import EVERYTHING, Application, application

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
    "AABJRU5ErkJggg=="
)
SAMPLING: dict[str, Any] = {
    "model": "scripted", "max_tokens": 4, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05,
    "seed": 7, "stop": ["END", "\n\n"], "timeout": 30, "n": 2, "frequency_penalty": 0.5,
    "presence_penalty": 0.5, "repetition_penalty": 1.1, "logit_bias": {"5": 1, "6": -1.5}, "user": "someone",
    "metadata": {"a": "b"},
}  # fmt: skip
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"]}},
            "required": ["city"],
        },
    },
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
# Together they use every field; what can not stand beside something else has a request of its own.
CONTROLS: dict[str, tuple[type[BaseModel], list[dict[str, Any]]]] = {
    "/generate": (
        GenerateBody,
        [
            {
                "prompt": "Hello", "max_length": 4, "temperature": 0.5, "top_p": 0.9, "seed": 7,
                "stop": ["END"], "timeout": 30,
            }
        ],
    ),
    "/v1/completions": (
        CompletionBody,
        [
            SAMPLING
            | {"prompt": ["Hello", "there"], "logprobs": 2, "echo": False, "suffix": "", "best_of": 2},
            {"prompt": [1, 2, 3], "max_tokens": 4},
            {"prompt": [[1, 2], [3]], "stream": True, "stream_options": {"include_usage": True}},
        ],
    ),
    "/v1/chat/completions": (
        ChatBody,
        [
            SAMPLING | {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "name": "someone", "content": [{"type": "text", "text": "Hello"}]},
                ],
                "logprobs": True, "top_logprobs": 3, "response_format": {"type": "text"}, "n": 1,
            },
            {
                "messages": [
                    {"role": "user", "content": "The weather?"},
                    {"role": "assistant", "content": None, "tool_calls": [CALL]},
                    {"role": "tool", "tool_call_id": "call_1", "content": "Sunny."},
                ],
                "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
                "parallel_tool_calls": False, "max_completion_tokens": 4,
            },
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "What is this?"},
                            {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
                        ],
                        "images": [PIXEL],
                    }
                ],
                "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 4,
            },
        ],
    ),
    "/v1/embeddings": (
        EmbeddingsBody,
        [
            {
                "model": "scripted", "input": ["Hello", "there"], "encoding_format": "float",
                "user": "someone", "timeout": 30, "dimensions": None,
            },
            {"input": [[1, 2], [3]], "encoding_format": "base64"},
        ],
    ),
    "/models/load": (ModelBody, [{"model": "other"}]),
    "/models/unload": (ModelBody, [{"model": "scripted"}]),
}  # fmt: skip
REQUESTS = [(path, body) for path, (_, bodies) in CONTROLS.items() for body in bodies]

Path = tuple[str | int, ...]


class Twice(dict[str, Any]):
    """An object in whose text one key appears a second time."""

    def __init__(self, fields: dict[str, Any], key: str) -> None:
        super().__init__(fields)
        self._key = key

    def items(self) -> Any:
        return [*super().items(), (self._key, self[self._key])]


DROP = object()
SWAPPED: list[Any] = [
    "text", "", "\u0000", 0, -1, 1.5, 2**63, 1e308, True, [], {}, [None], [{}], {"a": 1},
]  # fmt: skip
HUGE: list[Any] = ["a b " * 20_000, 10**400, ["x"] * 2000, {str(i): i for i in range(2000)}]


def nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


def paths(value: Any, above: Path = ()) -> Iterator[Path]:
    """Every place in the body."""
    items: Any = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in items:
        yield (*above, key)
        yield from paths(inner, (*above, key))


def replaced(body: Any, path: Path, value: Any) -> Any:
    """The body with another value there, or with nothing."""
    if not path:
        return value
    changed = copy.copy(body)
    if value is DROP and len(path) == 1:
        del changed[path[0]]
    else:
        changed[path[0]] = replaced(body[path[0]], path[1:], value)
    return changed


def at(body: Any, path: Path) -> Any:
    for key in path:
        body = body[key]
    return body


def variants(body: dict[str, Any], path: Path) -> Iterator[Any]:
    """All that can be done to one place."""
    was = at(body, path)
    values = [DROP, None, *SWAPPED, *HUGE, nested(was, 1), nested(was, 30), nested(was, 60), {"value": was}]
    for value in values:
        yield replaced(body, path, value)
    if isinstance(path[-1], str):
        parent = at(body, path[:-1])
        twice = Twice(parent, path[-1])
        yield replaced(body, path[:-1], twice) if len(path) > 1 else twice


@pytest.fixture(scope="module")
def served() -> Iterator[Application]:
    with application() as found:
        yield found


def check(served: Application, path: str, body: Any) -> None:
    raw = json.dumps(body).encode()
    answer = served.ask(path, raw)
    shown = f"{path} {raw[:300]!r}"
    assert answer.status < 500, f"{answer.status} for {shown}: {answer.text[:300]}"
    if answer.status >= 400:
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}, shown
        assert len(answer.content) <= 8192, shown
    elif answer.media.startswith("text/event-stream"):
        assert answer.text.endswith("data: [DONE]\n\n"), f"{shown}: {answer.text[-300:]}"
    else:
        assert answer.json(), shown


@pytest.mark.parametrize(("path", "body"), REQUESTS, ids=[path for path, _ in REQUESTS])
def test_one_field_changed(path: str, body: dict[str, Any]) -> None:
    other = ServedModel("other")
    with application([EVERYTHING, other] if path.startswith("/models") else [EVERYTHING]) as served:
        for place in paths(body):
            for variant in variants(body, place):
                check(served, path, variant)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60)
@given(st.data())
@pytest.mark.parametrize("path", [path for path in CONTROLS if not path.startswith("/models")])
def test_several_fields_changed(served: Application, path: str, data: st.DataObject) -> None:
    body = data.draw(st.sampled_from(CONTROLS[path][1]))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.sampled_from(sorted(paths(body), key=str) or [("prompt",)]))
        value = data.draw(st.sampled_from(SWAPPED) | anything)
        body = replaced(body, place, value)
        if not isinstance(body, dict):
            break
    check(served, path, body)


@pytest.mark.parametrize("path", CONTROLS)
def test_the_controls_are_valid_and_use_every_field(path: str) -> None:
    model, bodies = CONTROLS[path]
    assert {name for body in bodies for name in body} == set(model.model_fields)
    with application([EVERYTHING, ServedModel("other")]) as served:
        for body in bodies:
            answer = served.ask(path, json.dumps(body).encode())
            assert answer.status in (200, 202), answer.text
