"""Stop strings: a machine that is fed text and lets through what can not be part of one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from sidecar.generation import TokenLogprob


class StopMatcher:
    """Holds text back while it may still turn into a stop string.

    The concatenation of all that `feed` and `flush` return is the whole text up to the stop
    string that is complete first (of several, the one that begins first), which is itself left
    out. How the text was cut into pieces makes no difference.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(s for s in stops if s)
        self._held = ""
        self.hit = False

    def feed(self, text: str) -> str:
        """Take the next piece; return what is safe to show. After a hit, always empty."""
        if self.hit or not self._stops:
            return "" if self.hit else text
        self._held += text
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.hit = True
            shown, self._held = self._held[: min(found)[1]], ""
            return shown
        keep = self._longest_possible_start()
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        """The text has ended: what was held back is text after all."""
        shown, self._held = self._held, ""
        return shown

    def _longest_possible_start(self) -> int:
        """Length of the longest end of the held text that begins some stop string."""
        longest = max(len(stop) for stop in self._stops) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0


class Scores:
    """Log probabilities travel with their text: of text that is held back later, of a stop string never.

    The end token has no text, and no log probability is shown for it.
    """

    def __init__(self) -> None:
        self._waiting: list[TokenLogprob] = []

    def add(self, scores: Sequence[TokenLogprob]) -> None:
        """Take those of the next tokens."""
        self._waiting += scores

    def without_end(self) -> None:
        """The last token was the end token, if it has no bytes."""
        if self._waiting and not self._waiting[-1].token_bytes:
            self._waiting.pop()

    def shown(self, piece: str, *, ended: bool, stopped: bool) -> tuple[TokenLogprob, ...]:
        """What goes out with `piece`; `ended` when it is the last, `stopped` when a stop string cut it."""
        if not piece and not ended:
            return ()
        shown, self._waiting = self._waiting, []
        if stopped:
            starts = accumulate((len(score.token) for score in shown), initial=0)
            shown = [score for score, start in zip(shown, starts, strict=False) if start < len(piece)]
        return tuple(shown)
