"""The loop: take what arrived, run one step of everybody, send what it brought. Nothing else.

One thread owns the model, the pages and every request that was begun. It learns of the world
through one queue and answers through `send`. Memory for the longest possible answer is taken when
a request begins, so whatever began can end.

What can go wrong, and whom it costs:

- an error in one request (a distribution that is not a number, a grammar that allows no token): that
  request;
- out of memory: the request with the largest share of the step; the others repeat the step, and
  what is as large is not begun again before there is room;
- any other error of a step: the requests in it; shared prefixes are forgotten, the loop goes on;
- an error that CUDA does not recover from: this process. `StickyError` leaves the loop, the
  process ends, and whoever supervises it starts another.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from sidecar.errors import EngineFault, OutOfMemory, SidecarError
from sidecar.generation import EngineStats, Usage
from sidecar.traces import places
from sidecar.worker import messages
from sidecar.worker.blocks import Blocks, PoolExhausted
from sidecar.worker.choice import Choice, Job
from sidecar.worker.draw import Drawn, draw
from sidecar.worker.failures import Failure, asked_mib, failure
from sidecar.worker.memory import release_memory, stats
from sidecar.worker.messages import Beat, Begin, Cancel, FromWorker, Output, Prepare, Released, Step
from sidecar.worker.model import Model
from sidecar.worker.recovery import Recovery
from sidecar.worker.schedule import Chunk, Position, schedule

log = logging.getLogger(__name__)

BEAT_S = 1.0


class StickyError(Exception):
    """CUDA will not answer anything any more in this process."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The text thread's word on a request: `job`, or the error that ends it."""

    id: str
    job: Job | None
    error: SidecarError | None = None


Arrival = Prepare | Prepared | Begin | Cancel | messages.Trim | None


class Loop:
    """See the module. `turn` is one turn; `run` turns until None arrives."""

    def __init__(self, model: Model, batch_tokens: int, send: Callable[[FromWorker], None]) -> None:
        self.arrivals: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self.blocks = Blocks(model.plan.pages, model.plan.page_tokens)
        self.recovery = Recovery(model.plan, batch_tokens, model.device)
        self._model = model
        self._batch_tokens = batch_tokens
        self._send = send
        self._jobs: dict[str, Job | None] = {}  # None: still being prepared
        self._cancelled: set[str] = set()  # while still being prepared
        self._running: dict[int, Choice] = {}  # in the order in which they began
        self._next_key = 0
        self._beat_at = 0.0
        self._open = True

    def run(self) -> None:
        """Turn until told to stop. Raises StickyError."""
        while self._open:
            self.turn()

    def turn(self) -> None:
        """Take in what arrived (waiting for it while there is nothing to do), then one step."""
        self._take_in()
        if chunks := schedule(self._positions(), self._batch_tokens):
            self._step(chunks)
        if time.monotonic() >= self._beat_at:
            self._beat_at = time.monotonic() + BEAT_S
            self._send(Beat(self.stats()))

    def stats(self) -> EngineStats:
        """What there is to say about the memory, now."""
        running = len({choice.request_id for choice in self._running.values()})
        return stats(self._model.device, running, self.blocks.used, self.blocks.cached)

    # What arrives

    def _take_in(self) -> None:
        wait = not self._running
        while self._open:
            try:
                arrival = self.arrivals.get(block=wait, timeout=BEAT_S if wait else None)
            except queue.Empty:
                return
            wait = False
            self._arrived(arrival)

    def _arrived(self, arrival: Arrival) -> None:
        match arrival:
            case None:
                self._open = False
            case Prepare(id=id):
                self._jobs[id] = None
            case Prepared():
                self._prepared(arrival)
            case Begin(id=id):
                self._begin(id)
            case Cancel(id=id):
                self._cancel(id)
            case messages.Trim():  # shared prefixes stay: the pool is as large without them
                self._send(messages.Trimmed(release_memory(self._model.device), self.stats()))

    def _prepared(self, prepared: Prepared) -> None:
        if prepared.error is not None:
            self._release(prepared.id, prepared.error)
        elif prepared.id in self._cancelled:
            self._release(prepared.id)
        else:
            self._jobs[prepared.id] = prepared.job

    def _begin(self, id: str) -> None:
        job = self._jobs.get(id)
        if job is None:  # released before, or never known: its last word has been said
            return
        try:
            self.recovery.check(job)
        except OutOfMemory as error:
            self._release(id, error)
            return
        job.choices = [job.choice(index, self._model.tokens) for index in range(job.prepare.n)]
        for choice in job.choices:
            self._running[self._next_key] = choice
            self._next_key += 1

    def _cancel(self, id: str) -> None:
        if id not in self._jobs:
            return
        if self._jobs[id] is None:
            self._cancelled.add(id)
        else:
            self._release(id)

    def _release(self, id: str, error: SidecarError | None = None) -> None:
        """The last word: give back the pages, then say so."""
        job = self._jobs.pop(id, None)
        self._cancelled.discard(id)
        for key in [k for k, choice in self._running.items() if choice.request_id == id]:
            self._forget(key)
        usage = None
        if job is not None and job.choices:
            generated = sum(choice.generated for choice in job.choices)
            usage = Usage(len(job.ids), generated, job.cached_tokens)
        if error is None:
            self._send(Released(id, usage))
        else:
            self._send(Released(id, usage, error.code, error.message, error.param))

    def _forget(self, key: int) -> None:
        choice = self._running.pop(key)
        if choice.table is not None:
            self.blocks.close(choice.table)

    # One step

    def _positions(self) -> list[Position]:
        """All that can go on. Choices after the first wait for its prompt, which they then share."""
        return [
            Position(key, choice.computed, len(choice.ids))
            for key, choice in list(self._running.items())
            if choice.table is not None or self._open_table(choice)
        ]

    def _open_table(self, choice: Choice) -> bool:
        job = self._jobs.get(choice.request_id)
        if job is None:  # released a moment ago, with another of its choices
            return False
        if choice.index > 0 and job.choices[0].computed < choice.prompt_tokens:
            return False
        try:
            # The last sampled token is never computed: it needs no room.
            choice.table = self.blocks.open(choice.ids, choice.prompt_tokens + choice.max_tokens - 1)
        except PoolExhausted as error:  # the gate reserved these pages: if they are gone, we miscounted
            log.error("no pages for %s: %s", choice.request_id, error)
            self._release(
                choice.request_id, OutOfMemory("No KV memory was left for this request; try again.")
            )
            return False
        choice.computed = choice.table.shared_tokens
        if choice.index == 0:
            job.cached_tokens = choice.table.shared_tokens
        return True

    def _step(self, chunks: Sequence[Chunk]) -> None:
        caught: Exception | None = None
        try:
            with torch.inference_mode():
                drawn = self._computed(chunks)
        except Exception as error:
            caught = error
        if caught is None:
            self._take(chunks, drawn)
            return
        meaning = failure(caught)
        if meaning is Failure.STICKY:
            raise StickyError(str(caught)) from caught
        if meaning is Failure.FAULT:
            self._fault(chunks, caught)
        else:
            asked = asked_mib(caught)
            # The traceback holds the failed pass's tensors: nothing is free before it is gone.
            del caught
            self._out_of_memory(chunks, asked)

    def _computed(self, chunks: Sequence[Chunk]) -> list[Drawn]:
        """A pass of the model and the next tokens; nobody has heard of them, so it can be done again."""
        batch = [self._running[chunk.key] for chunk in chunks]
        ids = [
            token
            for choice, chunk in zip(batch, chunks, strict=True)
            for token in choice.ids[chunk.start : chunk.start + chunk.count]
        ]
        tables = [choice.table.pages for choice in batch if choice.table is not None]
        logits = self._model.step(chunks, ids, tables)
        ends = [choice for choice, chunk in zip(batch, chunks, strict=True) if chunk.last]
        return draw(logits, ends) if ends else []

    def _take(self, chunks: Sequence[Chunk], drawn: Sequence[Drawn]) -> None:
        """What the step brought: pages that are full, and a token for each whose prompt is computed."""
        ends = [(chunk.key, self._running[chunk.key]) for chunk in chunks if chunk.last]
        for chunk in chunks:
            choice = self._running[chunk.key]
            choice.computed = chunk.start + chunk.count
            if choice.table is not None:
                self.blocks.publish(choice.table, choice.ids, choice.computed)
        outputs = []
        for (_, choice), one in zip(ends, drawn, strict=True):
            if one.error is not None:
                self._release(choice.request_id, one.error)
            elif choice.request_id in self._jobs and (output := self._accepted(choice, one)):
                outputs.append(output)
        if ends:
            self._deliver(ends, outputs)

    def _accepted(self, choice: Choice, drawn: Drawn) -> Output | None:
        """The token as output; an error in one choice's text costs its request alone."""
        try:
            score = None if drawn.scores is None else self._model.tokens.logprob(drawn.scores)
            return choice.accept(drawn.token, self._model.eos, score)
        except Exception as error:
            self._release(choice.request_id, _textless(choice.request_id, error))
            return None

    def _deliver(self, ends: Sequence[tuple[int, Choice]], outputs: Sequence[Output]) -> None:
        shown = tuple(output for output in outputs if output.text or output.finish or output.logprobs)
        if shown:
            self._send(Step(shown))
        for key, choice in ends:
            if choice.finish is not None and key in self._running:
                self._forget(key)
                job = self._jobs[choice.request_id]
                if job is not None and all(c.finish is not None for c in job.choices):
                    self._release(choice.request_id)

    # What goes wrong

    def _out_of_memory(self, chunks: Sequence[Chunk], asked_mib: float) -> None:
        """Costs the request with the most tokens in the step; the others do the step again."""
        largest = max(chunks, key=lambda chunk: (chunk.count, chunk.start))
        error = self.recovery.ran_out(largest, asked_mib)
        self._release(self._running[largest.key].request_id, error)

    def _fault(self, chunks: Sequence[Chunk], error: Exception) -> None:
        """The step's requests end; what it half wrote was never shared, and older pages are not trusted."""
        ids = {self._running[chunk.key].request_id for chunk in chunks}
        log.error("a step failed for %s", ", ".join(sorted(ids)), exc_info=error)
        for id in ids:
            self._release(id, EngineFault("The engine failed in a step; the details are in its log."))
        self.blocks.forget()
        if not self._running:
            self._model.reset()


def _textless(id: str, error: Exception) -> SidecarError:
    if failure(error) is Failure.MEMORY:
        return OutOfMemory("Memory ran out while the answer's text was made; the same may work again.")
    log.error("the text of %s could not be made\n%s", id, places(error))
    return EngineFault("The answer's text could not be made; see the log.")
