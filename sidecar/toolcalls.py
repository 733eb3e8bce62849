"""Tool calls in a model's text: a machine that is fed text and tells what is text and what is a call. Pure.

The format is that of Hermes (NousResearch/Hermes-Function-Calling), which Qwen and other ChatML models
share:

    <tool_call>
    {"name": "get_weather", "arguments": {"city": "Oslo"}}
    </tool_call>

One or more of them, with text and white space around them, both members in either order. What begins like
a call and is none (no object, another member, a function that is not offered, cut before its arguments)
is text, to the letter. A call's arguments are passed on as the model writes them, from the first brace on:
whoever reads them holds them to their schema, as with OpenAI.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from hashlib import blake2b

from sidecar.generation import ToolDelta

OPEN, CLOSE = "<tool_call>", "</tool_call>"

Piece = str | ToolDelta


def call_id(answer: str, index: int) -> str:
    """The id of one call of an answer: the same at any time, another one for each answer and index."""
    return f"call_{blake2b(f'{answer} {index}'.encode(), digest_size=12).hexdigest()}"


class CallReader:
    """Reads one answer. How its text was cut into pieces makes no difference to what is told in all.

    White space between a text and a call, between calls, and behind the last one is not told. With
    `parallel` false nothing is told behind the first call, and `over` is true when something came there.
    """

    def __init__(self, answer: str, names: Collection[str], *, parallel: bool = True) -> None:
        """`names` are the functions on offer; `answer` is what the calls' ids are made from."""
        self._answer, self._names, self._parallel = answer, names, parallel
        self._told: list[_Run] = []
        self._state: Callable[[str], None] = self._text
        self._held = ""  # white space, and what may become a tag or a call
        self._matched = 0  # characters of the tag that stand at the end of what is held
        self._behind_call = False
        self._present = ToolDelta(-1)
        self._object = _Object()
        self._nesting = _Nesting()
        self.whole = 0
        self.over = False

    @property
    def in_call(self) -> bool:
        """Whether the next character belongs to a call of which something was told."""
        return self._state in (self._arguments, self._tail)

    def feed(self, text: str) -> list[Piece]:
        """Take the next text; return what is certain now, neighbours of one kind joined."""
        for char in text:
            if self.over:
                break
            self._state(char)
        return self._taken()

    def flush(self) -> list[Piece]:
        """The text has ended: what was held back is text after all, if it is not a call's own white space."""
        if self._state == self._head or (self._state == self._text and not self._is_gap()):
            self._show()
        return self._taken()

    def _text(self, char: str) -> None:
        """Outside of calls. The tag's first character stands nowhere else in it: what fails begins anew."""
        if char == OPEN[self._matched]:
            self._held += char
            self._matched += 1
            if self._matched == len(OPEN):
                self._matched, self._object, self._state = 0, _Object(), self._head
                self.over = self._is_single()
        elif self._matched:
            self._show()
            self._text(char)
        else:
            self._held += char
            if not char.isspace():
                self._show()

    def _show(self) -> None:
        """What is held is text: the end of everything, where one call alone was wanted and is there."""
        self.over = self._is_single()
        if not self.over:
            self._tell(self._held)
        self._held, self._matched, self._behind_call = "", 0, False

    def _is_single(self) -> bool:
        return not self._parallel and self.whole > 0

    def _is_gap(self) -> bool:
        return self._behind_call and (self._is_single() or self._held.isspace())

    def _head(self, char: str) -> None:
        """In a call, before anything of it can be told."""
        found = self._object
        try:
            found.feed(char)
            known = found.name is None or found.name in self._names
            possible = known and not (found.closed and found.name is None)
        except (ValueError, RecursionError):
            possible = False
        if not possible:
            self._state = self._text
            self._show()
            self._text(char)
            return
        self._held += char
        if found.in_arguments and found.name is not None:
            self._call(found.name, char)
            self._nesting, self._state = _Nesting(depth=1), self._arguments
        elif found.closed and found.name is not None:
            self._call(found.name, found.arguments or "{}")
            self._end()

    def _call(self, name: str, arguments: str) -> None:
        self._held = ""
        index = self._present.index + 1
        self._tell(arguments, ToolDelta(index, call_id(self._answer, index), name))
        self._present = ToolDelta(index)

    def _arguments(self, char: str) -> None:
        self._tell(char, self._present)
        self._nesting.feed(char)
        if self._nesting.depth == 0:
            self._end()

    def _end(self) -> None:
        self.whole += 1
        self._behind_call, self._state = True, self._tail

    def _tail(self, char: str) -> None:
        """Behind the arguments: the object's own brace, which small models forget or repeat, and the tag."""
        if char == CLOSE[self._matched]:
            self._held += char
            self._matched += 1
            if self._matched == len(CLOSE):
                self._held, self._matched, self._state = "", 0, self._text
        elif not self._matched and char.isspace():
            self._held += char
        elif self._matched or char != "}":  # there is no end tag: this is text, or the next call
            again, self._held, self._matched, self._state = self._held + char, "", 0, self._text
            for one in again:
                self._text(one)

    def _tell(self, text: str, of: ToolDelta | None = None) -> None:
        if self._told and self._told[-1].goes_on(of):
            self._told[-1].texts.append(text)
        elif text:
            self._told.append(_Run(of, [text]))

    def _taken(self) -> list[Piece]:
        told, self._told = self._told, []
        return [run.piece() for run in told]


@dataclass(slots=True)
class _Run:
    """What is told in one piece: text, or arguments of the call `of`."""

    of: ToolDelta | None
    texts: list[str]

    def goes_on(self, of: ToolDelta | None) -> bool:
        if self.of is None or of is None:
            return self.of is of
        return self.of.index == of.index

    def piece(self) -> Piece:
        text = "".join(self.texts)
        return text if self.of is None else replace(self.of, arguments=text)


class _Nesting:
    """How deep in brackets a JSON text is. Inside its strings no bracket counts."""

    def __init__(self, depth: int = 0) -> None:
        self.depth = depth
        self.quoted = False
        self._escaped = False

    def feed(self, char: str) -> None:
        if self._escaped:
            self._escaped = False
        elif self.quoted:
            self._escaped = char == "\\"
            self.quoted = char != '"'
        elif char == '"':
            self.quoted = True
        elif char in "{[":
            self.depth += 1
        elif char in "}]":
            self.depth -= 1


class _Object:
    """The object of one call as it grows. `feed` raises ValueError, or RecursionError, where it is none."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.arguments: str | None = None
        self.closed = False
        self._nesting = _Nesting()
        self._begun = False
        self._key: str | None = None
        self._token: list[str] = []

    @property
    def in_arguments(self) -> bool:
        """Whether the last character was the first of the arguments."""
        return self._key == "arguments" and len(self._token) == 1

    def feed(self, char: str) -> None:
        outside = not self._nesting.quoted
        self._nesting.feed(char)
        if not self._begun:
            self._begin(char)
        elif outside and self._nesting.depth == 0:
            self._member()
            self.closed = char == "}"
            _demand(self.closed)
        elif outside and self._nesting.depth == 1 and char in ":,":
            self._key_ends() if char == ":" else self._member()
        elif self._token or not char.isspace():
            self._token.append(char)
            _demand(self._nesting.depth > 1 or not outside or char.isspace() or char in '"}')
            _demand(len(self._token) > 1 or char == ("{" if self._key == "arguments" else '"'))

    def _begin(self, char: str) -> None:
        _demand(char == "{" or char.isspace())
        self._begun = char == "{"

    def _key_ends(self) -> None:
        key = json.loads(self._taken())
        _demand(self._key is None and key in ("name", "arguments") and getattr(self, key) is None)
        self._key = key

    def _member(self) -> None:
        text = self._taken().rstrip()
        value = json.loads(text)
        if self._key == "name":
            _demand(isinstance(value, str))
            self.name = value
        else:
            _demand(self._key == "arguments")
            self.arguments = text
        self._key = None

    def _taken(self) -> str:
        token, self._token = "".join(self._token), []
        return token


def _demand(kept: bool) -> None:
    if not kept:
        raise ValueError
