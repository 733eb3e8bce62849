"""The frames of a provider's `/completions` stream as events. Pure.

Those of `/chat/completions` are llama-server's, and read by `llama_frames`.
"""

from __future__ import annotations

import msgspec

from sidecar.errors import EngineFault
from sidecar.generation import Delta, Event, Finished, GenerationRequest
from sidecar.stops import StopMatcher


class _Choice(msgspec.Struct):
    text: str | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Text(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: object = None


_text = msgspec.json.Decoder(_Text)


class TextChoice:
    """The one choice of a `/completions` stream; the same to its user as `llama_frames.ChatChoice`."""

    def __init__(self, choice: int, request: GenerationRequest) -> None:
        self._choice = choice
        self._stops = StopMatcher(request.stop)
        self._counted = False
        self.complete = False
        self.prompt_tokens: int | None = None
        self.completion_tokens = 0

    @property
    def over(self) -> bool:
        """Whether nothing more is wanted; the token counts may come behind the end of the text."""
        return self.complete and (self._counted or self._stops.hit)

    def feed(self, frame: bytes) -> list[Event]:
        """The events of one frame. Raises EngineFault for a frame that is an error, or none."""
        try:
            found = _text.decode(frame)
        except msgspec.MsgspecError:
            raise EngineFault("a frame that can not be read") from None
        if found.error is not None:
            raise EngineFault("an error in place of a frame")
        if found.usage is not None:
            self._counted = True
            self.prompt_tokens = found.usage.prompt_tokens
            self.completion_tokens = found.usage.completion_tokens
        return [event for choice in found.choices if not self.complete for event in self._events(choice)]

    def _events(self, choice: _Choice) -> list[Event]:
        text = self._stops.feed(choice.text or "")
        ended = choice.finish_reason is not None
        if ended and not self._stops.hit:
            text += self._stops.flush()
        self.complete = ended or self._stops.hit
        events: list[Event] = [Delta(self._choice, text)] if text else []
        cut = choice.finish_reason == "length" and not self._stops.hit
        return [*events, Finished(self._choice, "length" if cut else "stop")] if self.complete else events
