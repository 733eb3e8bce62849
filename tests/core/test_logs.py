"""One line for each record, whatever is in it."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from sidecar.logs import JsonLines, PlainLines, request_id


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


def test_plain_is_one_line_even_for_exceptions() -> None:
    line = PlainLines().format(record("failed", failure(), path="/a\r\nX: 1"))
    assert "\n" not in line
    assert "\r" not in line
    assert "Traceback" not in line
    assert "ValueError: bad\\nvalue at failure:" in line


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
