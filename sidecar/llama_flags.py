"""What a llama-server can be told, read from its own `--help`. Pure.

llama.cpp renames its flags every few months, and a build that is told a name it does not know ends at
once. So the binary itself is asked; forms of the text since early 2024 are understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

# A flag stands at the beginning of a line, in older builds behind a star or some blanks;
# descriptions stand further right.
_LINE = re.compile(r"(?:\* ?)?\s{0,12}(?P<head>-{1,2}[A-Za-z].*)")
_SPELLING = re.compile(r"-{1,2}[A-Za-z][\w.-]*")
# One more spelling; not every build has a comma there.
_NEXT = re.compile(r"(?:,\s+| )(?=-{1,2}[A-Za-z])")
# After a spelling: one blank and a placeholder, which the next spelling or two blanks end.
_VALUE = re.compile(r" (?!-{1,2}[A-Za-z])(?P<value>\S(?:[^ ]| (?! ))*?)(?=,?\s+-{1,2}[A-Za-z]|\s{2,}|$)")
_REMOVED = "argument has been removed"


@dataclass(frozen=True, slots=True)
class Flag:
    """All spellings of one flag, negative ones too; `value` is the placeholder, empty for a switch."""

    spellings: tuple[str, ...]
    value: str


@dataclass(frozen=True, slots=True)
class LlamaFlags:
    """What one build knows. `version` is what it says of itself."""

    version: str = ""
    by_spelling: Mapping[str, Flag] = field(default_factory=dict)

    def knows(self, spelling: str) -> bool:
        """Whether the build lists this spelling."""
        return spelling in self.by_spelling

    def takes_value(self, spelling: str) -> bool:
        """Whether a value follows the flag; False where the flag is not known."""
        flag = self.by_spelling.get(spelling)
        return flag is not None and bool(flag.value)

    def spellings(self, spelling: str) -> tuple[str, ...]:
        """Every other way to say it, itself included."""
        flag = self.by_spelling.get(spelling)
        return flag.spellings if flag else (spelling,)


def parse_help(help_text: str, version_text: str = "") -> LlamaFlags:
    """The flags in the output of `--help`, with the version line in the output of `--version`.

    Flags that the build only lists to say that they are gone are left out. Text without any flag
    gives an empty result; whether that is a llama-server is the caller's question.
    """
    known: dict[str, Flag] = {}
    for head, description in _entries(help_text):
        if (flag := _flag(head)) and _REMOVED not in description:
            known.update(dict.fromkeys(flag.spellings, flag))
    return LlamaFlags(_version(version_text or help_text), known)


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """Each flag's first line, and all of its text in one line."""
    head, rest = "", ""
    for line in text.splitlines():
        if found := _LINE.match(line):
            if head:
                yield head, rest
            head = rest = found["head"].rstrip()
        else:
            rest += f" {line.strip()}"
    if head:
        yield head, rest


def _flag(head: str) -> Flag | None:
    spellings, value, at = [], "", 0
    while found := _SPELLING.match(head, at):
        spellings.append(found[0])
        at = found.end()
        if given := _VALUE.match(head, at):
            value, at = given["value"], given.end()
        if (following := _NEXT.match(head, at)) is None:
            break
        at = following.end()
    return Flag(tuple(spellings), value) if spellings else None


def _version(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    said = (line.removeprefix("version:").strip() for line in lines if line.startswith("version:"))
    return next(said, "version unknown")
