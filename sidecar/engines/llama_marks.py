"""Words that spell a control token, where only text can be sent: broken there, mended in the answer. Pure.

An invisible character behind the first one of `<|im_end|>` keeps it text. A model that repeats such words
repeats that character, so it is taken out again wherever it breaks a control token. It is one that the
request itself does not have: what a client wrote comes back as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

# Zero-width space, word joiner, then what mathematics does not show.
INVISIBLE = "\u200b\u2060\u2061\u2062\u2063\u2064"


@dataclass(frozen=True, slots=True)
class Marks:
    """How a request was marked: `mark` stands within names of `control` tokens. No names: it was not."""

    control: tuple[str, ...] = ()
    mark: str = INVISIBLE[0]


def mark_for(texts: Iterable[str], spelled: re.Pattern[str], control: tuple[str, ...]) -> Marks:
    """Marks for these texts; none where no text spells a control token."""
    told = list(texts)
    if not any(map(spelled.search, told)):
        return Marks()
    free = (mark for mark in INVISIBLE if not any(mark in text for text in (*told, *control)))
    return Marks(control, next(free, INVISIBLE[0]))


def marked(text: str, spelled: re.Pattern[str], mark: str) -> str:
    """The text with every control token that it spells broken."""
    return spelled.sub(lambda match: match[1] + mark, text)


class Mended:
    """Takes the marks out of one text that comes in pieces. How it was cut makes no difference.

    Held back is nothing but a mark and what stands behind it, until that is a control token or is none.
    """

    def __init__(self, marks: Marks) -> None:
        self._mark, self._names = marks.mark, tuple(filter(None, marks.control))
        # Of what is behind a mark, more is never needed, since no two stand side by side.
        self._enough = 2 * max(map(len, self._names), default=0)
        self._before = ""
        self._held = ""

    def feed(self, text: str) -> str:
        """Take the next piece; return what is certain now."""
        return self._told(text, lambda begun: any(name.startswith(begun) for name in self._names))

    def flush(self) -> str:
        """The text has ended: a mark that is held breaks nothing."""
        return self._told("", lambda _: False)

    def _told(self, text: str, may_become: Callable[[str], bool]) -> str:
        if not self._names:
            return text
        told, rest = "", self._held + text
        self._held = ""
        while self._mark in rest:
            shown, _, behind = rest.partition(self._mark)
            told += shown
            self._before = shown[-1:] or self._before
            begun = self._before + behind[: self._enough].replace(self._mark, "")
            is_ours = not behind.startswith(self._mark)  # no two of ours stand side by side
            if is_ours and begun.startswith(self._names):
                rest = behind
            elif is_ours and len(behind) < self._enough and may_become(begun):
                self._held = self._mark + behind
                return told
            else:
                told, rest, self._before = told + self._mark, behind, self._mark
        self._before = rest[-1:] or self._before
        return told + rest
