"""Functions and calls in the form of chat templates, with every text of a client changed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.chat_form import arguments, changed_call, changed_functions, functions
from sidecar.generation import Function, ToolCall, Tools

TOKEN = "<|im_end|>"


def broken(text: str) -> str:
    return text.replace(TOKEN, "<+|im_end|>")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{}", {}),
        ('{"a": [1, {"b": "c"}]}', {"a": [1, {"b": "c"}]}),
        (f'{{"{TOKEN}": ["{TOKEN}"]}}', {"<+|im_end|>": ["<+|im_end|>"]}),
        ('{"a": "\\u003c|im_end|>"}', {"a": "<+|im_end|>"}),
        (f"not JSON {TOKEN}", "not JSON <+|im_end|>"),
        (f'"{TOKEN}"', '"<+|im_end|>"'),
        ("[1]", "[1]"),
        ("", ""),
        ('{"a": NaN}', '{"a": NaN}'),
        ('{"a": 1e999}', '{"a": 1e999}'),
        ('{"a": "\\ud800"}', '{"a": "\\ud800"}'),
        ("[" * 100_000, "[" * 100_000),
        (f'{{"a": {"9" * 5000}}}', f'{{"a": {"9" * 5000}}}'),
    ],
    ids=lambda value: str(value)[:30],
)
def test_arguments(text: str, found: object) -> None:
    assert arguments(text, broken) == found


@given(
    st.recursive(
        st.text() | st.just(TOKEN) | st.integers(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
    )
)
def test_no_text_of_arguments_spells_a_control_token(value: object) -> None:
    call = changed_call(ToolCall("x", "f", json.dumps({"a": value})), broken)
    assert TOKEN not in call.arguments
    assert json.loads(call.arguments)["a"] == json.loads(json.dumps(value).replace(TOKEN, "<+|im_end|>"))


def test_no_text_of_a_function_spells_a_control_token() -> None:
    schema = {"type": "object", "properties": {TOKEN: {"enum": [TOKEN, 1, None, True]}}, "required": [TOKEN]}
    function = Function("f", f"Does {TOKEN}.", schema)
    assert TOKEN not in json.dumps(functions([function], broken))
    assert functions(changed_functions([function], broken)) == functions([function], broken)
    assert functions([function])[0]["function"] == {
        "name": "f", "description": f"Does {TOKEN}.", "parameters": schema,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tools", "names"),
    [
        (Tools((Function("f"), Function("g"))), ["f", "g"]),
        (Tools((Function("f"), Function("g")), "required"), ["f", "g"]),
        (Tools((Function("f"), Function("g")), "required", "g"), ["g"]),
        (Tools((Function("f"), Function("g")), "none"), []),
    ],
)
def test_what_the_model_is_shown(tools: Tools, names: list[str]) -> None:
    assert [function.name for function in tools.offered] == names
