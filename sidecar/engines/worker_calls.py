"""The transformers engine's answers to requests with tools: text and calls told apart, as events. Pure.

The worker writes one text. Here it is read for calls, and what is left of it for stop strings, which end a
choice as they do with llama-server: in the text, never in a call. Log probabilities go with the text
that they are of; those of a call's tokens are not shown, as OpenAI does not.
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.generation import Delta, Event, Finished, FinishReason, GenerationRequest, ToolDelta
from sidecar.stops import Scores, StopMatcher
from sidecar.toolcalls import CallReader
from sidecar.worker.messages import Output


class CallingAnswer:
    """All choices of one request. `over` when nothing more is wanted, whatever the worker still writes."""

    def __init__(self, request: GenerationRequest) -> None:
        self._choices = [CallingChoice(index, request) for index in range(request.n)]

    @property
    def over(self) -> bool:
        """Whether every choice is complete."""
        return all(choice.complete for choice in self._choices)

    def feed(self, output: Output) -> list[Event]:
        """The events of one output."""
        return self._choices[output.choice].feed(output)


class CallingChoice:
    """One choice: its outputs become events."""

    def __init__(self, index: int, request: GenerationRequest) -> None:
        assert request.tools is not None
        names = {function.name for function in request.offered}
        self._index = index
        self._reader = CallReader(f"{request.id} {index}", names, parallel=request.tools.parallel)
        self._stops = StopMatcher(request.stop)
        self._scores = Scores()
        self.complete = False

    def feed(self, output: Output) -> list[Event]:
        """The events of one output; none once the choice is complete."""
        if self.complete:
            return []
        if not self._reader.in_call:
            self._scores.add(output.logprobs)
        return list(self._events(output.text, output.finish))

    def _events(self, text: str, finish: FinishReason | None) -> Iterator[Event]:
        pieces = self._reader.feed(text)
        if finish is not None:
            pieces += self._reader.flush()
        for piece in pieces:
            yield from self._called(piece) if isinstance(piece, ToolDelta) else self._said(piece)
            if self._stops.hit:
                yield self._finished("stop")
                return
        if finish is not None or self._reader.over:
            yield from self._shown(self._stops.flush(), ended=not self._reader.whole)
            yield self._finished(self._reason(finish))

    def _called(self, piece: ToolDelta) -> Iterator[Event]:
        yield from self._shown(self._stops.flush())
        self._scores = Scores()  # what still waits is of the call's beginning
        yield Delta(self._index, "", tool=piece)

    def _said(self, text: str) -> Iterator[Event]:
        yield from self._shown(self._stops.feed(text))

    def _shown(self, text: str, *, ended: bool = False) -> Iterator[Event]:
        scores = self._scores.shown(text, ended=ended, stopped=self._stops.hit)
        if text or scores:
            yield Delta(self._index, text, scores)

    def _finished(self, reason: FinishReason) -> Finished:
        self.complete = True
        return Finished(self._index, reason)

    def _reason(self, finish: FinishReason | None) -> FinishReason:
        if finish == "length":
            return "length"
        return "tool_calls" if self._reader.whole else "stop"
