"""The events of one streamed chat answer, from bytes as they arrive: how much text, how it ended. Pure.

Other servers leave fields out or add some, so only what is needed is looked at, and a type that is not
OpenAI's is a broken stream rather than an exception.
"""

from __future__ import annotations

from typing import Any

import msgspec

BROKEN = "broken stream"


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Any = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class Answer:
    """What of a stream has come. `error` is a kind and a message; `done` is set by `[DONE]` alone."""

    def __init__(self) -> None:
        self.done = False
        self.tokens: int | None = None
        self.error: tuple[str, str] | None = None
        self._rest = b""

    def feed(self, data: bytes) -> int:
        """How many of the events that are whole now bring something of the answer."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return sum(self._line(line) for line in lines)

    def _line(self, line: bytes) -> bool:
        if not line.startswith(b"data:"):  # a ping, an event's name, the empty line behind it
            return False
        text = line[5:].strip()
        if text == b"[DONE]":
            self.done = True
            return False
        try:
            chunk = _decode(text)
        except msgspec.DecodeError as error:
            self.error = self.error or (BROKEN, str(error))
            return False
        if chunk.error is not None:
            self.error = self.error or refusal(chunk.error)
        if chunk.usage is not None and chunk.usage.completion_tokens is not None:
            self.tokens = chunk.usage.completion_tokens
        return any(_brings(choice.delta) for choice in chunk.choices or ())


def refusal(error: Any) -> tuple[str, str]:
    """Kind and message of an `error` as servers write it: an object, or merely a text."""
    if not isinstance(error, dict):
        return "error", str(error)
    return str(error.get("code") or error.get("type") or "error"), str(error.get("message") or error)


def _brings(delta: _Delta | None) -> bool:
    return delta is not None and bool(
        delta.content or delta.reasoning_content or delta.reasoning or delta.tool_calls
    )
