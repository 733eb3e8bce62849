"""What every process of ours that imports torch does first: its wire, its log, its end, its manners."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import threading
import warnings

from sidecar.errors import NoMemoryNow, StartError
from sidecar.worker import messages
from sidecar.worker.failures import Failure, failure
from sidecar.worker.messages import FromWorker

log = logging.getLogger("sidecar.worker")

_PR_SET_PDEATHSIG = 1


class Connection:
    """This end of the socket. `send` may be called from any thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()
        self._frames = messages.Frames()

    def send(self, message: FromWorker) -> None:
        """Write one frame. The other side's end is this process's end."""
        with self._lock:
            try:
                self._socket.sendall(messages.frame(message))
            except OSError:
                os._exit(0)

    def receive(self) -> list[messages.ToWorker]:
        """The next messages; empty when the other side is gone."""
        while data := self._socket.recv(65536):
            if bodies := list(self._frames.feed(data)):
                return [messages.decode_to_worker(body) for body in bodies]
        return []


class Wire(logging.Handler):
    """Takes our own log records, tracebacks included, to the server's log."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(logging.INFO)
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        """One record, one frame."""
        self._connection.send(messages.Log(record.levelno, self.format(record)))


def log_into(connection: Connection) -> None:
    """Our records go to the server; what libraries write to stderr is kept as last words."""
    own = logging.getLogger("sidecar")
    own.setLevel(logging.INFO)
    own.addHandler(Wire(connection))
    own.propagate = False


def refusal(error: Exception, no_memory: str) -> StartError:
    """Why it came to nothing, in one line; `no_memory` is said where memory ran out.

    Another try would fail the same way, so there is none.
    """
    if isinstance(error, StartError):
        return error
    log.error("the model can not be had", exc_info=error)
    if failure(error) is Failure.MEMORY:
        return NoMemoryNow(no_memory)
    words = (str(error).strip() or "no words").splitlines()[0][:200]
    return StartError(f"{type(error).__name__}: {words}")


def quieten(threads: int) -> None:
    """What libraries read when they are imported: their threads, and whom they talk to."""
    # How long a thread spins before it sleeps: some 20 microseconds, which bridges the gap between
    # two layers. For ever, and a neighbour on the core costs seconds; not at all (passive), and each
    # of the 300 barriers of a step costs a wake-up: 57 tokens/s where this gives 72 (8 streams, 151M).
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # Segments that grow leave no gaps between blocks of ever other sizes: what the cap allows can be had.
    # The older name, which torch still reads, is the user's own word.
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.simplefilter("ignore")
    logging.getLogger("torch").setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def die_with_parent() -> None:
    """Should the server be killed, the kernel kills this process too (prctl(2), Linux only).

    The socket's end says the same, but a worker deep in a long kernel would hear it late.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's; it then closes the socket
