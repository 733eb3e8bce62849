"""One line for each thing that happened: plain for people, JSON for machines.

A line never holds a prompt or an answer, unless LOG_PROMPTS says so: of an exception within a request, whose
words may be the client's, the type and the places are shown. A traceback goes into the JSON line's own field;
the plain form names the exception and the place, in one line.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from contextvars import ContextVar
from typing import Any, TextIO

from sidecar.traces import places

request_id: ContextVar[str] = ContextVar("request_id", default="")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
}


def configure(form: str = "plain", stream: TextIO | None = None, *, prompts: bool = False) -> None:
    """Send everything to `stream` (standard error), in one of the two forms. `prompts` may be shown."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(prompts) if form == "json" else PlainLines(prompts))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # Its own lines about starting and stopping repeat what is said better elsewhere.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


class _Lines(logging.Formatter):
    def __init__(self, prompts: bool = False) -> None:
        super().__init__()
        self._prompts = prompts

    def says_nothing(self) -> bool:
        """Whether the words of an exception are kept back."""
        return bool(request_id.get()) and not self._prompts


class PlainLines(_Lines):
    """`08:15:04 INFO request method=POST path=/generate status=200 ...`"""

    def format(self, record: logging.LogRecord) -> str:
        """One line, control characters escaped."""
        fields = "".join(f" {name}={_plain(value)}" for name, value in _fields(record).items())
        head = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname} {record.getMessage()}"
        return _one_line(head + fields + _culprit(record, words=not self.says_nothing()))


class JsonLines(_Lines):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, logger, message, then whatever the line carries."""
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            hidden = self.says_nothing()
            line["traceback"] = places(error) if hidden else self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    if request_id.get():
        fields["request_id"] = request_id.get()
    return fields


def _culprit(record: logging.LogRecord, *, words: bool) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    error = record.exc_info[1]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].name}:{frames[-1].lineno}" if frames else ""
    said = f": {error}" if words else ""
    return f" [{type(error).__name__}{said}{place}]"


def _plain(value: object) -> str:
    text = str(value)
    return text if text and " " not in text else repr(text)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
