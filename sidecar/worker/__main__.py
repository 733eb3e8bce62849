"""The worker process: `python -m sidecar.worker --fd N`, N being its end of a socket pair.

Four threads. This one loads the model and then is the loop. One reads the socket. One renders,
tokenises and prices, so that a long text never delays a step; another does the same for requests
whose answers have a grammar, so that compiling one delays no other text. The socket's end is the end
of the process: a worker never outlives the server that started it.
"""

from __future__ import annotations

import argparse
import logging
import os
import queue
import secrets
import socket
import sys
import threading
from typing import TYPE_CHECKING

from sidecar import context
from sidecar.errors import (
    BadRequest,
    EngineFault,
    OutOfMemory,
    SidecarError,
)
from sidecar.generation import Capacity, Price
from sidecar.traces import places
from sidecar.worker import process
from sidecar.worker.failures import Failure, failure
from sidecar.worker.messages import (
    Begin,
    Cancel,
    Load,
    Loaded,
    Prepare,
    Priced,
    Progress,
    Refused,
    Trim,
    WorkerConfig,
)
from sidecar.worker.process import Connection

if TYPE_CHECKING:  # torch and transformers take seconds: the first Progress must not wait for them
    from sidecar.worker.choice import Job
    from sidecar.worker.loop import Loop
    from sidecar.worker.model import Model

log = logging.getLogger("sidecar.worker")

EXIT_STICKY = 75
NO_MEMORY = (
    "Memory ran out while the model was loaded. Free memory on the device, choose a smaller "
    "profile, or quantise (--load_in_4bit)."
)


class Texts:
    """A text thread: renders, tokenises and prices, in the order of arrival.

    `submit` and `cancel` are the socket thread's. What was cancelled before its turn costs nothing.
    """

    def __init__(self, model: Model, config: WorkerConfig, loop: Loop, connection: Connection) -> None:
        self._requests: queue.SimpleQueue[Prepare] = queue.SimpleQueue()
        self._wanted: set[str] = set()
        self._model, self._config, self._loop, self._connection = model, config, loop, connection

    def submit(self, prepare: Prepare) -> None:
        """Queue one; the loop has heard of it before."""
        self._wanted.add(prepare.id)
        self._requests.put(prepare)

    def cancel(self, id: str) -> None:
        """Nobody wants it any more; the loop has heard of that before."""
        self._wanted.discard(id)

    def run(self) -> None:
        """For ever; the thread is a daemon."""
        while True:
            self._prepare(self._requests.get())

    def _prepare(self, prepare: Prepare) -> None:
        from sidecar.worker.loop import Prepared

        if prepare.id not in self._wanted:
            self._loop.arrivals.put(Prepared(prepare.id, None))
            return
        self._wanted.discard(prepare.id)
        try:
            job, price = self._priced(prepare)
            self._loop.recovery.check(job)
        except SidecarError as error:
            self._loop.arrivals.put(Prepared(prepare.id, None, error))
        except Exception as error:
            self._loop.arrivals.put(Prepared(prepare.id, None, _unprepared(prepare.id, error)))
        else:
            self._loop.arrivals.put(Prepared(prepare.id, job))
            self._connection.send(Priced(prepare.id, price))

    def _priced(self, prepare: Prepare) -> tuple[Job, Price]:
        from sidecar.worker.choice import Job

        texts = [prepare.text or "", *(m.content for m in prepare.messages or ())]
        tokens, room = self._model.tokens, self._model.plan.context
        context.check_length(texts, tokens.longest_token_bytes, prepare.max_tokens, room)
        ids = tokens.encode(prepare, room)
        context.check_biases(prepare.sampling.logit_bias, tokens.vocabulary)
        default = self._config.default_max_tokens
        max_tokens = context.answer_tokens(len(ids), prepare.max_tokens, default, room)
        pages = prepare.n * -(-(len(ids) + max_tokens - 1) // self._model.plan.page_tokens)
        if pages > self._model.plan.pages:
            raise BadRequest(
                f"{prepare.n} answers of {len(ids)} + {max_tokens} tokens take {pages} pages of KV "
                f"memory; there are {self._model.plan.pages}. Lower n or max_tokens.",
                param="n",
            )
        seed = prepare.sampling.seed
        constraint = self._model.grammars.constraint(prepare)
        job = Job(prepare, ids, max_tokens, secrets.randbits(63) if seed is None else seed, constraint)
        return job, Price(len(ids), max_tokens, pages)


def _unprepared(id: str, error: Exception) -> SidecarError:
    if failure(error) is Failure.MEMORY:
        return OutOfMemory("Memory ran out while the prompt was prepared. Shorten it, or its schema.")
    log.error("the prompt of %s could not be prepared\n%s", id, places(error))
    return EngineFault("The prompt could not be prepared; the details are in the log.")


def main() -> int:
    """Load, then serve until the socket closes. The exit code is for the supervisor's log."""
    parser = argparse.ArgumentParser(prog="python -m sidecar.worker", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="this end of a socket pair")
    process.die_with_parent()
    connection = Connection(socket.socket(fileno=parser.parse_args().fd))
    first = connection.receive()
    if not first or not isinstance(first[0], Load):
        return 0
    config = first[0].config
    process.log_into(connection)
    try:
        model = _load(config, connection)
        loop = _start_threads(model, config, connection)
        _hold(model)
    except Exception as error:
        refusal = process.refusal(error, NO_MEMORY)
        connection.send(Refused(refusal.code, refusal.message))
        return refusal.exit_code
    return _serve(loop, model, config, connection)


def _load(config: WorkerConfig, connection: Connection) -> Model:
    def report(phase: str, fraction: float | None, detail: str) -> None:
        connection.send(Progress(phase, fraction, detail))

    report("load", None, "importing torch and transformers")
    # One core stays free for the server's own process: OpenMP's barriers collapse when a thread has
    # to wait for its core (measured: 0.13 s became 5 s for a step with both of two cores taken).
    threads = config.threads or max((os.cpu_count() or 2) - 1, 1)
    process.quieten(threads)
    import torch

    torch.set_num_threads(threads)
    from sidecar.worker.load import load

    model = load(config, report)
    report("warmup", None, "")
    model.warm_up(config.batch_tokens)
    return model


def _start_threads(model: Model, config: WorkerConfig, connection: Connection) -> Loop:
    from sidecar.worker.loop import Loop

    loop = Loop(model, config.batch_tokens, connection.send)
    texts, constrained = (Texts(model, config, loop, connection) for _ in range(2))
    threading.Thread(target=texts.run, daemon=True, name="texts").start()
    threading.Thread(target=constrained.run, daemon=True, name="constrained").start()
    reading = (connection, loop, texts, constrained)
    threading.Thread(target=_read, args=reading, daemon=True, name="socket").start()
    return loop


def _hold(model: Model) -> None:
    from sidecar.worker.memory import hold

    hold(model.plan, model.device)


def _serve(loop: Loop, model: Model, config: WorkerConfig, connection: Connection) -> int:
    from sidecar.worker.loop import StickyError

    capacity = Capacity(config.slots, model.plan.pages, model.plan.page_tokens, model.plan.context)
    connection.send(Loaded(str(model.device), capacity, model.about, loop.stats(), model.plan))
    try:
        loop.run()
    except StickyError as error:
        log.error("CUDA will not recover in this process: %s", error)
        return EXIT_STICKY
    return 0


def _read(connection: Connection, loop: Loop, texts: Texts, constrained: Texts) -> None:
    """Hand each message to whom it concerns; the loop hears of everything first."""
    try:
        while arrived := connection.receive():
            for message in arrived:
                if isinstance(message, Prepare | Begin | Cancel | Trim):
                    loop.arrivals.put(message)
                if isinstance(message, Prepare):
                    (constrained if message.is_constrained else texts).submit(message)
                elif isinstance(message, Cancel):
                    texts.cancel(message.id)
                    constrained.cancel(message.id)
    finally:  # whatever happened: a worker that hears nobody is of no use
        loop.arrivals.put(None)


if __name__ == "__main__":
    sys.exit(main())
