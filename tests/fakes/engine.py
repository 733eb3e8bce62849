"""An engine that follows a script written into the prompt. Deterministic, without a model.

    [say:some words]      answer these words (default: the capital of France)
    [hold:2]              stop before token 2 until `release()`; 0 holds before `Started`, one more than
                          there are words before `Done`
    [fail:1:out_of_memory] raise that error before token 1; 0 raises before `Started`
    [price:model_not_ready] raise that error when priced
    [pace:20]             wait so many milliseconds before each token
    [early]               end without `Done`, against the protocol
    [raise:1]             raise something that is no SidecarError before token 1
    [pages:9]             cost that many pages instead of one for every 16 tokens
    [call:get_time:{"city": "Paris"}] call a tool, its arguments in pieces of four characters
    [stubborn]            stay open when closed, until `release()`

The engine counts what is open, and `wait_for` lets a test in another thread wait for that.
"""

from __future__ import annotations

import asyncio
import math
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace

from sidecar.budget import MIB
from sidecar.context import check_length
from sidecar.engine import EngineState, Loading, Ready
from sidecar.errors import BadRequest, ContextOverflow, revive
from sidecar.generation import (
    Capacity,
    Delta,
    Done,
    Embeddings,
    EngineStats,
    Event,
    Finished,
    GenerationRequest,
    Price,
    Started,
    TokenLogprob,
    ToolDelta,
    Usage,
)

VOCABULARY = 32_000
LONGEST_TOKEN_BYTES = 128
ANSWER = "The capital of France is Paris."
CAPACITY = Capacity(slots=4, pages=4096, page_tokens=16, context=6144)


class ScriptedEngine:
    """Implements `sidecar.engine.Engine`."""

    def __init__(self, capacity: Capacity = CAPACITY, state: EngineState | None = None) -> None:
        self.capacity = capacity
        self.requests: list[GenerationRequest] = []
        self.forgotten: list[str] = []
        self.open: set[str] = set()
        self.held: set[str] = set()
        self.closing: set[str] = set()
        self.stopped = False
        self.started = False
        self.told = EngineStats(resident_bytes=1)
        self.gives_back: float | None = None
        self.trims = 0
        self._state = state or self._ready()
        self._holds: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = threading.Condition()

    async def start(self) -> None:
        """Nothing to load."""
        self.started = True

    async def stop(self) -> None:
        """Nothing to unload."""
        self.stopped = True

    def state(self) -> EngineState:
        """As set."""
        return self._state

    def set_state(self, state: EngineState | None = None) -> None:
        """Pretend; None is ready again."""
        self._state = state or self._ready()

    def _ready(self) -> Ready:
        return Ready("cpu", self.capacity, (("dtype", "none, a script"),))

    def stats(self) -> EngineStats:
        """Figures of a machine without a card, unless a test wants others."""
        return replace(self.told, running=len(self.open))

    async def trim(self) -> float | None:
        """What `gives_back` says; that much less is held afterwards."""
        self.trims += 1
        if self.gives_back:
            left = self.told.resident_bytes - int(self.gives_back * MIB)
            self.told = replace(self.told, resident_bytes=left)
        return self.gives_back

    async def price(self, request: GenerationRequest) -> Price:
        """One token for each word of the prompt."""
        self.requests.append(request)
        check_length([_text(request)], LONGEST_TOKEN_BYTES, request.max_tokens, self.capacity.context)
        script = _Script(request)
        if code := script.word("price"):
            raise revive(code, "priced by script")
        prompt = script.prompt_tokens
        _check_ids(request)
        left = self.capacity.context - prompt
        asked = min(1024, left) if request.max_tokens is None else request.max_tokens
        if asked > left or left <= 0:
            raise ContextOverflow.of(prompt, max(asked, 1), self.capacity.context)
        pages = script.number("pages")
        needed = math.ceil((prompt + asked * request.n) / self.capacity.page_tokens)
        return Price(prompt, asked, needed if pages is None else pages)

    def forget(self, request: GenerationRequest) -> None:
        """Note who was priced and will not be streamed any more."""
        self.forgotten.append(request.id)

    async def stream(self, request: GenerationRequest) -> AsyncIterator[Event]:
        """Say the words, or whatever else the script wants."""
        script = _Script(request)
        self._loop = asyncio.get_running_loop()
        self._note(self.open.add, request.id)
        try:
            async for event in self._play(request, script):
                yield event
        finally:
            if script.has("stubborn"):
                self._note(self.closing.add, request.id)
                await self._hold(request.id)
            self._note(self.open.discard, request.id)

    async def embed(self, inputs: Sequence[str | tuple[int, ...]]) -> Embeddings:
        """The length of each input, and a half. Held as streams are."""
        self._loop = asyncio.get_running_loop()
        if any(text == "[hold]" for text in inputs):
            await self._hold("embed")
        vectors = tuple((float(len(text)), 0.5) for text in inputs)
        return Embeddings(vectors, sum(len(text) for text in inputs))

    def release(self) -> None:
        """Let everything that is held go on. From any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._release)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 5.0) -> bool:
        """Wait in another thread until the counts say so."""
        with self._changed:
            return self._changed.wait_for(condition, seconds)

    async def _play(self, request: GenerationRequest, script: _Script) -> AsyncIterator[Event]:
        await self._step(request, script, 0)
        yield Started(script.prompt_tokens)
        spoken = 0
        for choice in range(request.n):
            words, reason = script.words(request.max_tokens)
            for index, word in enumerate(words):
                await self._step(request, script, index + 1)
                yield Delta(choice, word, _logprobs(word, request.logprobs))
            calls = script.calls(choice)
            for piece in calls:
                yield Delta(choice, "", tool=piece)
            spoken += len(words)
            yield Finished(choice, "tool_calls" if calls else "length" if reason else "stop")
            if choice + 1 == request.n:
                await self._step(request, script, len(words) + 1)
        if not script.has("early"):
            yield Done(Usage(script.prompt_tokens, spoken, cached_tokens=0))

    async def _step(self, request: GenerationRequest, script: _Script, index: int) -> None:
        await asyncio.sleep((script.number("pace") or 0) / 1000 if index else 0)
        if script.number("hold") == index:
            await self._hold(request.id)
        if script.number("raise") == index:
            raise RuntimeError("raised by script")
        if (fail := script.word("fail")) and fail.partition(":")[0] == str(index):
            raise revive(fail.partition(":")[2], "failed by script")

    async def _hold(self, name: str) -> None:
        event = asyncio.Event()
        self._holds.add(event)
        self._note(self.held.add, name)
        try:
            await event.wait()
        finally:
            self._holds.discard(event)
            self._note(self.held.discard, name)

    def _release(self) -> None:
        for event in self._holds:
            event.set()

    def _note(self, change: Callable[[str], None], name: str) -> None:
        with self._changed:
            change(name)
            self._changed.notify_all()


class _Script:
    """The directives in one request's prompt."""

    def __init__(self, request: GenerationRequest) -> None:
        self._text = _text(request)
        ids = isinstance(request.prompt, tuple) and isinstance(request.prompt[0], int)
        self.prompt_tokens = len(request.prompt) if ids else max(1, len(self._text.split()))
        self._stop = request.stop

    def has(self, name: str) -> bool:
        return f"[{name}]" in self._text

    def word(self, name: str) -> str | None:
        found = re.search(rf"\[{name}:([^\]]*)\]", self._text)
        return found[1] if found else None

    def number(self, name: str) -> int | None:
        word = self.word(name)
        return None if word is None else int(word)

    def calls(self, choice: int) -> list[ToolDelta]:
        found = re.findall(r"\[call:(\w+):(\{.*?\})\]", self._text)
        return [piece for index, call in enumerate(found) for piece in _pieces(choice, index, *call)]

    def words(self, max_tokens: int | None) -> tuple[list[str], bool]:
        silent = self.word("call") is not None and self.word("say") is None
        said = "" if silent else self.word("say") or ANSWER
        for stop in self._stop:
            said = said.partition(stop)[0]
        words = re.findall(r"\s*\S+", said)
        cut = max_tokens is not None and len(words) > max_tokens
        return words[:max_tokens], cut


def _pieces(choice: int, index: int, name: str, arguments: str) -> Iterator[ToolDelta]:
    """The first names it, the others continue its arguments."""
    yield ToolDelta(index, f"call_{choice}_{index}", name)
    for at in range(0, len(arguments), 4):
        yield ToolDelta(index, arguments=arguments[at : at + 4])


def loading(phase: str = "load", progress: float | None = 0.5) -> Loading:
    """A state that is not ready yet."""
    return Loading(phase, progress)


def _text(request: GenerationRequest) -> str:
    if isinstance(request.prompt, str):
        return request.prompt
    return " ".join(item.content for item in request.prompt if not isinstance(item, int))


def _check_ids(request: GenerationRequest) -> None:
    ids = [item for item in request.prompt if isinstance(item, int)]
    ids += [token for token, _ in request.sampling.logit_bias]
    if any(token >= VOCABULARY for token in ids):
        raise BadRequest(f"token ids must be below {VOCABULARY}", param="prompt")


def _logprobs(word: str, top: int | None) -> tuple[TokenLogprob, ...]:
    if top is None:
        return ()
    others = tuple((f"{word}{rank}", b"?", -1.0 - rank) for rank in range(top))
    return (TokenLogprob(word, word.encode(), -0.25, others),)
