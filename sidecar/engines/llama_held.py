"""The text of an answer that llama-server holds to a form. Pure."""

from __future__ import annotations

import re

_BROKEN = re.compile("\ufffd+")


class HeldText:
    """Bytes that only look like a character, put back to the one character that the grammar took them for.

    Its grammars count two to four such bytes as one, and what is sent is a replacement character for
    each: a text would be longer than its schema says (llama.cpp 0.7.0). Free text is left as it is.
    """

    def __init__(self, held: bool) -> None:
        self._held = held
        self._within = False

    def feed(self, text: str) -> str:
        """The next text, with one replacement character for each run of them, wherever frames end."""
        if not self._held or not text:
            return text
        kept = _BROKEN.sub("\ufffd", text)
        kept = kept.removeprefix("\ufffd") if self._within else kept
        self._within = text.endswith("\ufffd")
        return kept
