"""What the API process and the worker say to each other: small typed values, framed msgpack.

    API -> worker    Load, then Prepare | Begin | Cancel | Trim ...      (closing the socket means stop)
    worker -> API    Progress ..., Loaded | Refused, then Priced | Step | Released | Beat | Trimmed | Log ...

A request lives from Prepare to Released. Prepare only tokenises; Begin puts it to work; Cancel
is answered by Released in any state, and an id is never used again before that. Every frame is
a four-byte big-endian length and that many bytes of msgpack.

Nothing here imports torch: both processes share this file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from sidecar.budget import Plan
from sidecar.generation import (
    Capacity,
    EngineStats,
    FinishReason,
    GenerationRequest,
    JsonFormat,
    Message,
    Price,
    Sampling,
    TokenLogprob,
    Tools,
    Usage,
)

_LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 64 * 1024 * 1024


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All that the worker needs to know. `sources` are tried in order (folder or hub id).

    Without `context_asked` the context is cut to what the model was made for; the plan has what is served.
    `vram_budget_mib` counts on CUDA, `memory_budget_mib` on CPU; None is no limit.
    """

    sources: tuple[str, ...]
    context: int
    slots: int
    batch_tokens: int
    kv_tokens: int | None
    default_max_tokens: int
    context_asked: bool = True
    quantization: str = "auto"
    auto_quantize: bool = True
    device: str = "auto"
    threads: int | None = None
    vram_budget_mib: int | None = None
    memory_budget_mib: int | None = None
    page_tokens: int | None = None
    cuda_graphs: bool = True


class Load(msgspec.Struct, frozen=True, tag=True):
    """The first frame: load this."""

    config: WorkerConfig


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """Tokenise and price; answered by Priced or Released. One of the three prompts is set."""

    id: str
    text: str | None
    token_ids: tuple[int, ...] | None
    messages: tuple[Message, ...] | None
    max_tokens: int | None
    sampling: Sampling
    stop: tuple[str, ...]
    n: int
    logprobs: int | None
    tools: Tools | None = None
    format: JsonFormat | None = None

    @property
    def is_constrained(self) -> bool:
        """Whether its answers must have a form that is held while they are made."""
        return self.format is not None or (self.tools is not None and self.tools.must_call)


class Begin(msgspec.Struct, frozen=True, tag=True):
    """The gate let the prepared request in."""

    id: str


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Nobody wants it any more."""

    id: str


class Trim(msgspec.Struct, frozen=True, tag=True):
    """Give back the memory that nobody uses; answered by Trimmed."""


ToWorker = Load | Prepare | Begin | Cancel | Trim


class Progress(msgspec.Struct, frozen=True, tag=True):
    """How far loading is; `fraction` 0..1 where known."""

    phase: str
    fraction: float | None = None
    detail: str = ""


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """Ready. `about` tells people what was chosen and why."""

    device: str
    capacity: Capacity
    about: tuple[tuple[str, str], ...]
    stats: EngineStats
    plan: Plan | None = None


class Refused(msgspec.Struct, frozen=True, tag=True):
    """Loading failed for a reason that another try will not change."""

    code: str
    message: str


class Priced(msgspec.Struct, frozen=True, tag=True):
    """Prepared; waiting for Begin."""

    id: str
    price: Price


class Output(msgspec.Struct, frozen=True, array_like=True):
    """What one step brought one choice. `text` may be empty while a character is incomplete."""

    id: str
    choice: int
    text: str
    finish: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


class Step(msgspec.Struct, frozen=True, tag=True):
    """All outputs of one step of the whole batch."""

    outputs: tuple[Output, ...]


class Released(msgspec.Struct, frozen=True, tag=True):
    """The last word on a request: its memory is free again. `code` None means it is complete."""

    id: str
    usage: Usage | None = None
    code: str | None = None
    message: str = ""
    param: str | None = None


class Beat(msgspec.Struct, frozen=True, tag=True):
    """The loop turns. Sent about once a second, working or idle."""

    stats: EngineStats


class Trimmed(msgspec.Struct, frozen=True, tag=True):
    """What a Trim gave back, and what is held since."""

    freed_mib: float
    stats: EngineStats


class Log(msgspec.Struct, frozen=True, tag=True):
    """A line, or a traceback, for the server's log. `level` as in the logging module."""

    level: int
    text: str


FromWorker = Progress | Loaded | Refused | Priced | Step | Released | Beat | Trimmed | Log

_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def frame(message: ToWorker | FromWorker) -> bytes:
    """One message as the bytes that go on the wire."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


def decode_to_worker(body: bytes) -> ToWorker:
    """A frame's body, as the worker reads it. Raises msgspec.DecodeError."""
    return _to_worker.decode(body)


def decode_from_worker(body: bytes) -> FromWorker:
    """A frame's body, as the API process reads it. Raises msgspec.DecodeError."""
    return _from_worker.decode(body)


class Frames:
    """Cuts a byte stream into frame bodies. `feed` may end anywhere in a frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield each body that `data` completed. Raises ValueError on an absurd length."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {length} bytes; at most {MAX_FRAME_BYTES} are read")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield body


def prepare(request: GenerationRequest) -> Prepare:
    """The wire form of a request; its deadline stays with the API process.

    So do stop strings where tools are offered: they are looked for in the text around the calls alone,
    and the worker does not know what is a call.
    """
    return Prepare(
        id=request.id,
        text=request.prompt if isinstance(request.prompt, str) else None,
        token_ids=request.token_ids or None,
        messages=request.messages or None,
        max_tokens=request.max_tokens,
        sampling=request.sampling,
        stop=() if request.offered else request.stop,
        n=request.n,
        logprobs=request.logprobs,
        tools=request.tools,
        format=request.format,
    )
