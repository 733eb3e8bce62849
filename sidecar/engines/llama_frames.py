"""What comes back from llama-server, as events. Pure: bytes in, events and errors out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from sidecar import errors
from sidecar.engines.call_pieces import CallPieces
from sidecar.engines.llama_held import HeldText
from sidecar.engines.llama_marks import Marks, Mended
from sidecar.engines.sse_frames import MAX_FRAME_BYTES
from sidecar.errors import BadRequest, EngineFault, NotReady, OutOfMemory, SidecarError
from sidecar.generation import (
    Delta,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    TokenLogprob,
)
from sidecar.stops import Scores, StopMatcher

_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]

# What a frame holds has no way back to its holder, so the collector of cycles need not look at it.


class _Probability(msgspec.Struct, gc=False):
    token: str = ""
    bytes: list[_Byte] = []
    logprob: float = 0.0
    top_logprobs: list[_Probability] = []


class _Timings(msgspec.Struct, gc=False):
    cache_n: int | None = None
    prompt_n: int = 0
    predicted_n: int = 0


class _Error(msgspec.Struct, gc=False):
    message: str = ""
    type: str = ""
    code: int = 500


class _Completion(msgspec.Struct, gc=False):
    content: str = ""
    stop: bool = False
    stop_type: str = ""
    tokens_predicted: int = 0
    completion_probabilities: list[_Probability] = []
    timings: _Timings | None = None
    error: _Error | None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: int = 0
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _ChatDelta(msgspec.Struct, gc=False):
    content: str | None = None
    tool_calls: list[_Call] | None = None


class _Logprobs(msgspec.Struct, gc=False):
    content: list[_Probability] | None = None


class _ChatChoice(msgspec.Struct, gc=False):
    delta: _ChatDelta = msgspec.field(default_factory=_ChatDelta)
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _ChatUsage(msgspec.Struct, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chat(msgspec.Struct, gc=False):
    choices: list[_ChatChoice] = []
    usage: _ChatUsage | None = None
    timings: _Timings | None = None
    error: _Error | None = None


_completion = msgspec.json.Decoder(_Completion)
_chat = msgspec.json.Decoder(_Chat)
_LENGTH = frozenset({"limit", "length"})
UNMARKED = Marks()


class CompletionChoice:
    """One choice out of `/completion`: its frames become events.

    Stop strings are looked for here and not there: there, the tokens of text that is held back lose
    their own text in the log probabilities, and which of two strings wins is decided otherwise.
    """

    def __init__(self, choice: int, request: GenerationRequest) -> None:
        self._choice = choice
        self._alternatives = request.logprobs
        # Nothing is looked for in the text: as it comes, it is said.
        self._plain = not request.stop and request.logprobs is None and request.format is None
        self._held = HeldText(request.format is not None)
        self._stops = StopMatcher(request.stop)
        self._scores = Scores()
        self.complete = False
        self.prompt_tokens: int | None = None
        self.completion_tokens = 0
        self.cached_tokens: int | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more is wanted."""
        return self.complete

    def feed(self, frame: bytes) -> list[Event]:
        """The events of one frame. Raises the SidecarError that the frame reports."""
        found = _decoded(_completion, frame)
        if found.error is not None:
            raise upstream_error(found.error.code, found.error.type, found.error.message)
        self.completion_tokens = found.tokens_predicted or self.completion_tokens
        if found.timings is not None:
            self.cached_tokens = found.timings.cache_n
        if self._plain and not found.stop:
            return [Delta(self._choice, found.content)] if found.content else []
        self._scores.add(_logprobs(found.completion_probabilities, self._alternatives))
        text = self._stops.feed(self._held.feed(found.content))
        reason: FinishReason | None = "stop" if self._stops.hit else None
        if reason is None and found.stop:
            text += self._stops.flush()
            reason = _reason(found.stop_type)
        self.complete = reason is not None
        return _said(self._choice, text, reason, self._scores, stopped=self._stops.hit)


class ChatChoice:
    """One choice out of `/v1/chat/completions`: text, pieces of tool calls, or both.

    `marks` are those of the prompt; they are taken out of the text and of the arguments.
    """

    def __init__(self, choice: int, request: GenerationRequest, marks: Marks = UNMARKED) -> None:
        self._choice = choice
        self._alternatives = request.logprobs
        self._held = HeldText(request.format is not None)
        # llama.cpp 0.7.0 holds to `parallel_tool_calls` in `required` alone.
        most_calls = None if request.tools is None or request.tools.parallel else 1
        self._calls = CallPieces(choice, most_calls, marks)
        self._mended = Mended(marks)
        self._stops = StopMatcher(request.stop)
        self._scores = Scores()
        self._counted = False
        self._cut = False
        self.complete = False
        self.prompt_tokens: int | None = None
        self.completion_tokens = 0
        self.cached_tokens: int | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more is wanted; the token counts come behind the end of the text."""
        return self.complete and (self._counted or self._cut)

    def feed(self, frame: bytes) -> list[Event]:
        """The events of one frame. Raises the SidecarError that the frame reports."""
        found = _decoded(_chat, frame)
        if found.error is not None:
            raise upstream_error(found.error.code, found.error.type, found.error.message)
        self._count(found)
        events: list[Event] = []
        for choice in found.choices:
            if not self.complete:
                events += self._events(choice)
        return events

    def _count(self, found: _Chat) -> None:
        if found.timings is not None:
            self.cached_tokens = found.timings.cache_n
            self.completion_tokens = found.timings.predicted_n or self.completion_tokens
        if found.usage is not None:
            self._counted = True
            self.prompt_tokens = found.usage.prompt_tokens
            self.completion_tokens = found.usage.completion_tokens

    def _events(self, choice: _ChatChoice) -> list[Event]:
        self._scores.add(_logprobs((choice.logprobs and choice.logprobs.content) or [], self._alternatives))
        text = self._stops.feed(self._mended.feed(self._held.feed(choice.delta.content or "")))
        if choice.finish_reason is not None or choice.delta.tool_calls:
            text += self._stops.feed(self._mended.flush())
        reason: FinishReason | None = "stop" if self._stops.hit else None
        if reason is None and choice.finish_reason is not None:
            text += self._stops.flush()
            reason = _reason(choice.finish_reason)
        pieces = [
            self._calls.feed(call.index, call.id, call.function.name, call.function.arguments)
            for call in choice.delta.tool_calls or []
        ]
        if reason is None and None in pieces:
            reason = "tool_calls"
        if reason is not None:
            pieces += self._calls.flush()
        calls = [Delta(self._choice, "", tool=piece) for piece in pieces if piece is not None]
        self._cut = reason is not None and choice.finish_reason is None
        self.complete = reason is not None
        events = _said(self._choice, text, reason, self._scores, stopped=self._stops.hit)
        # What was said stands before a call, and the end behind it.
        return [*events[:-1], *calls, events[-1]] if reason is not None else [*events, *calls]


def upstream_error(status: int, type: str, message: str) -> SidecarError:
    """What an error of llama-server is in our words. Its own text is shown, shortened: it names limits."""
    text = " ".join(message.split())[:300]
    if type == "exceed_context_size_error":
        return errors.ContextOverflow(f"The prompt does not fit the context: {text}.", param="messages")
    if "out of memory" in text.lower() or "failed to find free space in the KV" in text:
        return OutOfMemory(f"The engine had no memory for this request: {text}")
    if status == 503:
        return NotReady(f"The engine is not ready: {text}", retry_after_s=5)
    if "input" in text and "is too large to process" in text:  # llama.cpp 0.7.0 says 500
        return errors.ContextOverflow(f"The input does not fit: {text}.", param="input")
    # A route or a key that is not known there is our mistake, and nothing that a client can mend.
    if 400 <= status < 500 and status not in (401, 403, 404, 405):
        return BadRequest(f"The engine refuses the request: {text}")
    return EngineFault(f"The engine failed: {text or 'no reason given'}")


def error_of(status: int, body: bytes) -> SidecarError:
    """The same of a whole response, whatever its body is."""
    try:
        found = msgspec.json.decode(body[:MAX_FRAME_BYTES])
        fields: Mapping[str, Any] = found["error"]
        return upstream_error(status, str(fields.get("type", "")), str(fields.get("message", "")))
    except (msgspec.MsgspecError, LookupError, TypeError, AttributeError):
        return upstream_error(status, "", f"status {status} without a reason")


def _decoded(decoder: Any, frame: bytes) -> Any:
    try:
        return decoder.decode(frame)
    except msgspec.MsgspecError as error:
        raise EngineFault(f"The engine sent a frame that can not be read: {str(error)[:120]}.") from None


def _said(
    choice: int, text: str, reason: FinishReason | None, scores: Scores, *, stopped: bool
) -> list[Event]:
    """New text of one choice, if there is any, and its end, if it is."""
    if reason != "length" and reason is not None and not stopped:
        scores.without_end()
    logprobs = scores.shown(text, ended=reason is not None, stopped=stopped)
    events: list[Event] = [Delta(choice, text, logprobs)] if text or logprobs else []
    return events if reason is None else [*events, Finished(choice, reason)]


def _reason(finish_reason: str) -> FinishReason:
    if finish_reason in _LENGTH:
        return "length"
    return "tool_calls" if finish_reason == "tool_calls" else "stop"


def _logprobs(found: list[_Probability], alternatives: int | None) -> tuple[TokenLogprob, ...]:
    if alternatives is None:
        return ()
    return tuple(
        TokenLogprob(p.token, bytes(p.bytes), p.logprob, _top(p.top_logprobs[:alternatives])) for p in found
    )


def _top(found: list[_Probability]) -> tuple[tuple[str, bytes, float], ...]:
    return tuple((p.token, bytes(p.bytes), p.logprob) for p in found)
