"""One line for each record, whatever is in it."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from sidecar.logs import JsonLines, PlainLines, request_id
from sidecar.traces import places


def record(message: str, error: BaseException | None = None, **fields: Any) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    found = logging.LogRecord("sidecar.x", logging.INFO, "f.py", 1, message, (), info)
    vars(found).update(fields)
    return found


def failure() -> BaseException:
    try:
        raise ValueError("bad\nvalue")
    except ValueError:
        error = sys.exc_info()[1]
        assert error
        return error


def caused() -> BaseException:
    """Both of them quote a request."""
    words = "canary"
    try:
        try:
            raise ValueError(words)
        except ValueError as error:
            raise KeyError(words) from error
    except KeyError as error:
        return error


def test_plain_is_one_line_even_for_exceptions() -> None:
    line = PlainLines().format(record("failed", failure(), path="/a\r\nX: 1"))
    assert "\n" not in line
    assert "\r" not in line
    assert "Traceback" not in line
    assert "ValueError: bad\\nvalue at failure:" in line


@pytest.mark.parametrize("form", [PlainLines, JsonLines])
def test_within_a_request_an_exception_has_no_words(form: type[PlainLines | JsonLines]) -> None:
    token = request_id.set("abc")
    try:
        lines = [form(prompts).format(record("failed", caused())) for prompts in (False, True)]
    finally:
        request_id.reset(token)
    assert "KeyError" in lines[0]
    assert "in caused" in lines[0] or "at caused" in lines[0]
    assert "canary" not in lines[0]
    assert "canary" in lines[1]


def test_what_caused_it_is_named_too() -> None:
    text = places(caused())
    assert text.index("ValueError") < text.index("and then") < text.index("KeyError")
    assert "canary" not in text


def test_json_has_fields_request_id_and_traceback() -> None:
    token = request_id.set("abc")
    try:
        line = JsonLines().format(record("failed", failure(), status=500))
    finally:
        request_id.reset(token)
    body = json.loads(line)
    assert (body["status"], body["request_id"], body["level"]) == (500, "abc", "info")
    assert "Traceback" in body["traceback"]
    assert "\n" not in line
