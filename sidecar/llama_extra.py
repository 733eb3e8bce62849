"""`extra_args` of a profile: llama-server's flags that nothing else sets, word by word. Pure.

They stand last on the command line, so a word that is wrong would end each start, and one that is
another's business would overturn what the engine said before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from sidecar.errors import ConfigError
from sidecar.llama_denied import refusal
from sidecar.llama_flags import LlamaFlags
from sidecar.profiles import Profile

_FLAG = re.compile(r"-{1,2}[A-Za-z]")
_PLACEHOLDERS = re.compile(r"[A-Z]+( [A-Z]+)+")  # START END


def extra_words(words: Sequence[str], profile: Profile, flags: LlamaFlags | None) -> tuple[str, ...]:
    """The words as they are. Raises ConfigError for the first that is not accepted, with the reason.

    `flags` None is a binary that can not be asked: then how many values a flag takes is not looked at.
    """
    if words and not _is_flag(words[0]):
        raise _refused(profile, words[0], "the first word of extra_args must be a flag")
    for word in filter(_is_flag, words):
        if why := _why_not(word, flags):
            raise _refused(profile, word, why)
    if flags is not None:
        _counted(words, profile, flags)
    return tuple(words)


def _why_not(word: str, flags: LlamaFlags | None) -> str | None:
    said, equals, _ = word.partition("=")
    name = _name(said)
    if why := refusal(flags.spellings(name) if flags else (name,)):
        return why
    if equals:
        return "llama-server takes no =; write the flag and its value as two words"
    if flags is not None and not flags.knows(name):
        return f"this llama-server ({flags.version}) does not have it"
    return None


def _counted(words: Sequence[str], profile: Profile, flags: LlamaFlags) -> None:
    """Each flag has the values that this build's help shows, and no word is left over."""
    starts = [at for at, word in enumerate(words) if _is_flag(word)]
    for start, end in pairwise([*starts, len(words)]):
        flag, values = words[start], words[start + 1 : end]
        wanted = _values_of(_name(flag), flags)
        if len(values) < wanted:
            raise _refused(profile, flag, f"its value is missing: it takes {wanted}, and has {len(values)}")
        if len(values) > wanted:
            takes = "no value" if wanted == 0 else f"{wanted} value{'s' * (wanted > 1)}"
            raise _refused(profile, values[wanted], f"{flag} before it takes {takes}")


def _values_of(name: str, flags: LlamaFlags) -> int:
    placeholder = flags.by_spelling[name].value
    if _PLACEHOLDERS.fullmatch(placeholder):
        return placeholder.count(" ") + 1
    return 1 if placeholder else 0


def _name(word: str) -> str:
    """llama-server reads underscores of long flags as dashes."""
    return word.replace("_", "-") if word.startswith("--") else word


def _is_flag(word: str) -> bool:
    return _FLAG.match(word) is not None


def _refused(profile: Profile, word: str, why: str) -> ConfigError:
    shown = repr(word if len(word) <= 64 else word[:64] + "...")
    return ConfigError(f"profile {profile.name}: llamacpp.extra_args: {shown} is not accepted: {why}")
