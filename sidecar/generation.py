"""The vocabulary: what a request is, and what an engine answers.

Values only: frozen, no I/O, the standard library alone. Both dialects of the API write these,
both engines read them, and an answer comes back as one stream of events:

    Started                 the engine took the request; nothing has been computed for the client
    Delta ...               text or a piece of a tool call of one choice, never cutting a character
    Finished                one for each choice
    Done                    the token counts; the last event

An error before `Started` is an answer of its own; after it, it ends the stream in place of `Done`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls"]
ToolChoice = Literal["none", "auto", "required"]


@dataclass(frozen=True, slots=True)
class Image:
    """A picture in a message, as the bytes of its file, behind the first `at` characters of the text."""

    data: bytes
    media_type: str
    at: int = 0


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model made in an earlier turn. `arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `content` is plain text: control tokens in it stay text.

    `tool_calls` belong to the assistant's turns, `tool_call_id` to the turn of a tool that answers one.
    """

    role: Role
    content: str
    name: str | None = None
    images: tuple[Image, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """What the model may call. `parameters` is the JSON schema of the arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tools:
    """The functions on offer. `only` names the one that must be called; `parallel` allows several."""

    functions: tuple[Function, ...]
    choice: ToolChoice = "auto"
    only: str | None = None
    parallel: bool = True

    @property
    def must_call(self) -> bool:
        """Whether the answer is a call, whatever the model would say."""
        return self.choice == "required"

    @property
    def offered(self) -> tuple[Function, ...]:
        """Those that the model is shown: none where it may call none, and one where it must call that one."""
        if self.choice == "none":
            return ()
        return tuple(function for function in self.functions if self.only in (None, function.name))


@dataclass(frozen=True, slots=True)
class JsonFormat:
    """The answer is one JSON value: an object, or what `schema` (JSON schema) describes."""

    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is chosen. The defaults are neutral: the model's own distribution.

    The order is fixed: logit bias, penalties, temperature, top-k, top-p, min-p.
    `temperature` 0 is greedy. `top_k` 0 is off. `seed` None draws a fresh one for each request.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request, whatever dialect it came in.

    `prompt` is raw text, token ids, or a conversation that the chat template renders.
    `max_tokens` counts new tokens for each choice; None is the profile's default, cut to what
    the context leaves. `logprobs` None is off, otherwise the number of alternatives (0..20).
    `deadline_s` counts from the arrival, waiting included. `format` None is free text.
    """

    id: str
    prompt: str | tuple[int, ...] | tuple[Message, ...]
    max_tokens: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    n: int = 1
    logprobs: int | None = None
    deadline_s: float = 60.0
    tools: Tools | None = None
    format: JsonFormat | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation; empty when the prompt is text or token ids."""
        return cast(tuple[Message, ...], self.prompt) if self._holds(Message) else ()

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The prompt as token ids; empty when it is text or a conversation."""
        return cast(tuple[int, ...], self.prompt) if self._holds(int) else ()

    def _holds(self, kind: type) -> bool:
        # A prompt is of one kind, and may have a million characters: its first item tells.
        return not isinstance(self.prompt, str) and isinstance(next(iter(self.prompt), None), kind)

    @property
    def offered(self) -> tuple[Function, ...]:
        """The functions that the model may call."""
        return () if self.tools is None else self.tools.offered

    @property
    def must_call(self) -> bool:
        """Whether the answer is a call; see `Tools`."""
        return self.tools is not None and self.tools.must_call

    @property
    def images(self) -> tuple[Image, ...]:
        """Every picture of the conversation, in order."""
        return tuple(image for message in self.messages for image in message.images)


@dataclass(frozen=True, slots=True)
class Price:
    """What a request takes, known before it waits: the gate reserves `pages`."""

    prompt_tokens: int
    max_tokens: int
    pages: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the engine has in all: `slots` requests at once over `pages` of KV memory."""

    slots: int
    pages: int
    page_tokens: int
    context: int


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One sampled token: its text, its bytes, its log probability, the likeliest alternatives."""

    token: str
    token_bytes: bytes
    logprob: float
    top: tuple[tuple[str, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts. `cached_tokens` of the prompt had been computed before; None where nobody can tell."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The engine took the request.

    `served_by` is somebody else where a hosted provider answers in its place, with `model` as its model.
    """

    prompt_tokens: int
    served_by: str = "self"
    model: str = ""


@dataclass(frozen=True, slots=True)
class ToolDelta:
    """A piece of one tool call: the first one of an `index` has `id` and `name`, all may have arguments."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class Delta(NamedTuple):
    """New text of one choice, or a piece of a tool call.

    There is one for every token, and a frozen dataclass takes twice as long to make.
    """

    choice: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    tool: ToolDelta | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """One choice is complete."""

    choice: int
    reason: FinishReason


@dataclass(frozen=True, slots=True)
class Done:
    """All choices are complete."""

    usage: Usage


Event = Started | Delta | Finished | Done


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector for each input, in order, and the tokens of all inputs."""

    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What the engine last said of itself; bytes are the device's, 0 where there is none.

    `heard_at` is when it said so, in seconds of the receiver's monotonic clock; None is never. `pid` is
    the process that holds the memory, where its own allocator does not tell.
    """

    running: int = 0
    pages_used: int = 0
    pages_cached: int = 0
    memory_allocated_bytes: int = 0
    memory_reserved_bytes: int = 0
    resident_bytes: int = 0
    cuda_available: bool = False
    cuda_device_count: int = 0
    device_name: str = ""
    heard_at: float | None = None
    pid: int | None = None
