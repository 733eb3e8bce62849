"""Tool calls that come in pieces, as llama-server's chat route sends them. Pure."""

from __future__ import annotations

from sidecar.engines.llama_marks import Marks, Mended
from sidecar.generation import ToolDelta


class CallPieces:
    """The pieces of one answer's calls: numbered without gaps, without `marks`, and not more than `most`."""

    def __init__(self, choice: int, most: int | None, marks: Marks) -> None:
        self._choice, self._most, self._marks = choice, most, marks
        # Its numbers of calls, and ours.
        self._known: dict[int, int] = {}
        self._arguments: list[Mended] = []

    def feed(self, number: int, id: str | None, name: str | None, arguments: str | None) -> ToolDelta | None:
        """What a piece of call `number` tells; None where that is one call too many."""
        known = self._known.get(number)
        if known is not None:
            return ToolDelta(known, arguments=self._arguments[known].feed(arguments or ""))
        index = len(self._known)
        if index == self._most:
            return None
        self._known[number] = index
        self._arguments.append(Mended(self._marks))
        told = self._arguments[index].feed(arguments or "")
        return ToolDelta(index, id or f"call_{self._choice}_{index}", name or "", told)

    def flush(self) -> list[ToolDelta]:
        """The answer has ended: what is left of arguments that were cut. Whole ones end with their brace."""
        left = [mended.flush() for mended in self._arguments]
        return [ToolDelta(index, arguments=text) for index, text in enumerate(left) if text]
