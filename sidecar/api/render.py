"""Answers in OpenAI's words: whole, and as chunks of a stream."""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from sidecar.api.answers import Choice
from sidecar.generation import Delta, Embeddings, Finished, Started, TokenLogprob, ToolCall, ToolDelta, Usage

IMPOSSIBLE = -9999.0


@dataclass(frozen=True, slots=True)
class Options:
    """How the answer was asked for."""

    stream: bool = False
    with_logprobs: bool = False
    include_usage: bool = False


@dataclass
class Render:
    """One answer's constant parts. The two dialects differ in four methods."""

    id: str
    model: str
    options: Options = Options()
    created: int = field(default_factory=lambda: int(time.time()))
    object: str = ""
    chunk_object: str = ""

    def __post_init__(self) -> None:
        head = msgspec.json.encode(self._head(self.chunk_object))
        self._before = b"data: " + head[:-1] + b',"choices":['
        self._after = b'],"usage":null}\n\n' if self.options.include_usage else b"]}\n\n"

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        rendered = [self.choice(index, choice) for index, choice in enumerate(choices)]
        return self._head(self.object) | {
            "choices": rendered,
            "usage": usage_body(usage),
        }

    def by(self, started: Started) -> Render:
        """The same of whoever answers: the model that is named is the one that did."""
        return replace(self, model=started.model) if started.model else self

    def frame(self, choice: dict[str, Any]) -> bytes:
        """One event of the stream."""
        return self._before + msgspec.json.encode(choice) + self._after

    def usage_frame(self, usage: Usage) -> bytes:
        """The event before the end, when it was asked for."""
        body = self._head(self.chunk_object) | {
            "choices": [],
            "usage": usage_body(usage),
        }
        return b"data: " + msgspec.json.encode(body) + b"\n\n"

    def opening(self, index: int) -> dict[str, Any] | None:  # noqa: ARG002 - a hook, empty here
        """What a choice begins with, before its first text."""
        return None

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        """A whole choice."""
        raise NotImplementedError

    def delta(self, event: Delta) -> dict[str, Any]:
        """New text of one choice."""
        raise NotImplementedError

    def finish(self, event: Finished) -> dict[str, Any]:
        """The end of one choice."""
        raise NotImplementedError

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
        }


@dataclass
class ChatRender(Render):
    """POST /v1/chat/completions."""

    object: str = "chat.completion"
    chunk_object: str = "chat.completion.chunk"

    def opening(self, index: int) -> dict[str, Any]:
        """The first delta alone has the role."""
        return _chunk(index, {"role": "assistant", "content": ""})

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        """A whole message."""
        message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
        if choice.calls:
            message["content"] = choice.text or None
            message["tool_calls"] = [_call(call) for call in choice.calls]
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(choice.logprobs),
            "finish_reason": choice.reason,
        }

    def delta(self, event: Delta) -> dict[str, Any]:
        """New text."""
        if event.tool is not None:
            return _chunk(event.choice, {"tool_calls": [_piece(event.tool)]})
        found = _chunk(event.choice, {"content": event.text})
        if self.options.with_logprobs:
            found["logprobs"] = self._logprobs(event.logprobs)
        return found

    def finish(self, event: Finished) -> dict[str, Any]:
        """An empty delta with the reason."""
        return _chunk(event.choice, {}) | {"finish_reason": event.reason}

    def _logprobs(self, tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if not self.options.with_logprobs:
            return None
        return {"content": [_chat_logprob(token) for token in tokens], "refusal": None}


@dataclass
class TextRender(Render):
    """POST /v1/completions."""

    object: str = "text_completion"
    chunk_object: str = "text_completion"
    _written: dict[int, int] = field(default_factory=dict)

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        """A whole text."""
        return self._text(index, choice.text, choice.logprobs, choice.reason)

    def delta(self, event: Delta) -> dict[str, Any]:
        """New text."""
        return self._text(event.choice, event.text, event.logprobs, None)

    def finish(self, event: Finished) -> dict[str, Any]:
        """No text, and the reason."""
        return self._text(event.choice, "", (), event.reason)

    def _text(
        self, index: int, text: str, tokens: Sequence[TokenLogprob], reason: str | None
    ) -> dict[str, Any]:
        logprobs = self._logprobs(index, tokens) if self.options.with_logprobs else None
        return {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": reason,
        }

    def _logprobs(self, index: int, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
        offsets = []
        for token in tokens:
            offsets.append(self._written.get(index, 0))
            self._written[index] = offsets[-1] + len(token.token)
        return {
            "tokens": [token.token for token in tokens],
            "token_logprobs": [_finite(token.logprob) for token in tokens],
            "top_logprobs": [{text: _finite(lp) for text, _, lp in token.top} for token in tokens],
            "text_offset": offsets,
        }


def embeddings_body(
    found: Embeddings, model: str, encode: Callable[[Sequence[float]], object]
) -> dict[str, Any]:
    """The answer of POST /v1/embeddings."""
    return {
        "object": "list",
        "model": model,
        "data": [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(found.vectors)
        ],
        "usage": {"prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens},
    }


def base64_of(vector: Sequence[float]) -> str:
    """Little-endian float32, as OpenAI's client asks for it."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def served_by(started: Started) -> dict[str, str]:
    """The header that says who answered: `self`, or the name of a hosted provider."""
    return {"x-served-by": started.served_by}


def usage_body(usage: Usage) -> dict[str, Any]:
    """Token counts as OpenAI names them."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens or 0},
    }


def _finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI writes this number for a token that can not come."""
    return max(logprob, IMPOSSIBLE)


def _chunk(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


def _call(call: ToolCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _piece(piece: ToolDelta) -> dict[str, Any]:
    """The first piece of a call names it; the others continue its arguments."""
    if piece.id is None:
        return {"index": piece.index, "function": {"arguments": piece.arguments}}
    whole = ToolCall(piece.id, piece.name or "", piece.arguments)
    return {"index": piece.index, **_call(whole)}


def _chat_logprob(token: TokenLogprob) -> dict[str, Any]:
    top = [_one_logprob(text, raw, logprob) for text, raw, logprob in token.top]
    return _one_logprob(token.token, token.token_bytes, token.logprob) | {"top_logprobs": top}


def _one_logprob(text: str, raw: bytes, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": _finite(logprob), "bytes": list(raw)}
