"""The Docker Engine, as the few calls that are made of it. Only this module knows the SDK.

Every failure is one exception with a cause. The calls are those that the hardened overlay's proxy
lets through (the container list, `top` and `restart` of one container), and `exec` where it is used.
"""

from __future__ import annotations

import http.client
import importlib
import math
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import requests  # the SDK's own client

from watchdog.observation import Unknown

# By its name as a string: for the type checker, `docker` is this repository's folder.
_sdk: Any = importlib.import_module("docker")

# Docker 29 accepts nothing older, Docker 25 and later speak it; an engine that does not says which
# version it wants, and that one is used. No extra call is needed, which a proxy might refuse.
API_VERSION = "1.44"
CALL_S = 5.0
# Beyond the stop timeout, Docker kills, reaps and starts; with a GPU the start takes seconds.
RESTART_READ_MARGIN_S = 30
_WANTED = re.compile(r"(?:[Mm]aximum|[Mm]inimum) supported API version is (\d+\.\d+)")
_KINDS: dict[type[BaseException], str] = {
    TimeoutError: "docker_timeout",
    PermissionError: "docker_permission",
    FileNotFoundError: "docker_unreachable",
    ConnectionRefusedError: "docker_unreachable",
    ConnectionResetError: "docker_broke_off",
    BrokenPipeError: "docker_broke_off",
    http.client.IncompleteRead: "docker_broke_off",
}
_STATUS = {403: "docker_forbidden", 404: "container_not_found", 409: "container_conflict"}


class EngineFailure(Exception):
    """The engine did not do what it was asked for. `cause` is stable, `text` is for people."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause
        self.text = text

    def as_unknown(self) -> Unknown:
        """The same as a value."""
        return Unknown(self.cause, self.text)


class Engine:
    """A Docker Engine at `host`. Connects when asked; one that is away may come later."""

    def __init__(self, host: str, version: str | None = None) -> None:
        self.host = host
        self._version = version or API_VERSION

    def containers(self, labels: list[str]) -> list[dict[str, Any]]:
        """Every container with all of the labels, whatever its state."""
        with self._call() as client:
            return list(client.containers(all=True, filters={"label": labels}))

    def processes(self, container_id: str) -> dict[str, Any]:
        """The engine's `top`: titles and rows, with the host's process ids."""
        with self._call() as client:
            return dict(client.top(container_id))

    def restart(self, container_id: str, timeout_s: float) -> None:
        """Restart, with SIGTERM first and SIGKILL after `timeout_s`. Returns once the daemon is done."""
        with self._call(RESTART_READ_MARGIN_S) as client:
            client.restart(container_id, timeout=math.ceil(timeout_s))

    def execute(self, container_id: str, argv: tuple[str, ...]) -> str:
        """Prepare a command in the container; the id under which it is started and asked about."""
        with self._call() as client:
            return str(client.exec_create(container_id, list(argv), stderr=True)["Id"])

    def output(self, exec_id: str, deadline_s: float, bytes_max: int) -> bytes:
        """Start the command and take what it prints, until it ends or one of the bounds is met.

        Asked for without an upgrade of the connection: the SDK's own way reads past what came
        together with the headers, and loses it.
        """
        until_s = time.monotonic() + deadline_s
        with self._call() as client:
            url = f"{client.base_url}/v{self._version}/exec/{exec_id}/start"
            with client.post(
                url, json={"Detach": False, "Tty": False}, stream=True, timeout=deadline_s
            ) as answer:
                if not answer.ok:
                    raise _refused(answer)
                return _taken(answer, until_s, bytes_max)

    def exit_status(self, exec_id: str) -> int | None:
        """The command's exit status; None while it runs."""
        with self._call() as client:
            found = client.exec_inspect(exec_id)
            return None if found["Running"] else int(found["ExitCode"])

    @contextmanager
    def _call(self, timeout_s: float = CALL_S) -> Iterator[Any]:
        """A client for one call, and one connection: a connection that is kept may end between two
        calls, and who finds that out while restarting can not know whether it happened."""
        try:
            with _sdk.APIClient(base_url=self.host, version=self._version, timeout=timeout_s) as client:
                client.trust_env = False  # no proxy of the environment between us and the engine
                client.headers["Connection"] = "close"
                yield client
        except EngineFailure:
            raise
        except Exception as error:  # the SDK's, requests', urllib3's and the socket's own
            raise self._named(error) from error

    def _named(self, error: Exception) -> EngineFailure:
        if isinstance(error, _sdk.errors.APIError):
            failure = _refused(error.response, str(error.explanation or ""))
            if (wanted := _WANTED.search(failure.text)) is not None:
                self._version = wanted[1]  # from the next call on
            return failure
        if isinstance(error, requests.exceptions.Timeout):
            return EngineFailure("docker_timeout", f"Docker at {self.host} did not answer in time")
        for inner in _causes(error):
            for kind, cause in _KINDS.items():
                if isinstance(inner, kind):
                    return EngineFailure(cause, self._about(inner))
        if isinstance(error, requests.exceptions.ConnectionError):
            return EngineFailure("docker_broke_off", f"Docker at {self.host} broke off: {_first_line(error)}")
        return EngineFailure("docker_garbage", f"Docker at {self.host} answered oddly: {_first_line(error)}")

    def _about(self, error: BaseException) -> str:
        said = f"Docker at {self.host}: {getattr(error, 'strerror', None) or type(error).__name__}"
        if not isinstance(error, PermissionError):
            return said
        with suppress(OSError):
            found = os.stat(self.host.removeprefix("unix://"))
            mode = stat.S_IMODE(found.st_mode)
            said += (
                f" (this process is {os.getuid()}:{os.getgid()} with groups {os.getgroups()}, the socket is "
                f"{found.st_uid}:{found.st_gid} {mode:o}; add its group: DOCKER_GID={found.st_gid})"
            )
        return said


def _taken(answer: requests.Response, until_s: float, bytes_max: int) -> bytes:
    """Both streams of the multiplexed answer, standard output first to come, first in."""
    taken = b""
    while len(taken) <= bytes_max + 8192:
        if time.monotonic() >= until_s:
            raise EngineFailure("docker_timeout", "the command in the container did not end in time")
        piece = answer.raw.read1(8192)
        if not piece:
            break
        taken += piece
    return demultiplexed(taken)


def demultiplexed(stream: bytes) -> bytes:
    """The payload of Docker's frames: one byte of stream, three of nothing, four of length, and text.

    A frame that promises more than there is ends the text where it ends.
    """
    text, at = b"", 0
    while at + 8 <= len(stream):
        length = int.from_bytes(stream[at + 4 : at + 8], "big")
        text += stream[at + 8 : at + 8 + length]
        at += 8 + length
    return text


def _refused(answer: requests.Response | None, explanation: str = "") -> EngineFailure:
    if answer is None:
        return EngineFailure("docker_garbage", explanation or "no answer")
    if not explanation:
        with suppress(ValueError, AttributeError):
            explanation = str(answer.json().get("message", ""))
    cause = _STATUS.get(answer.status_code, "docker_error")
    said = " ".join((explanation or str(answer.reason)).split())[:300]
    return EngineFailure(cause, f"Docker answered {answer.status_code}: {said}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything that it wraps; the libraries wrap in arguments, causes and reasons."""
    todo, met = [error], set()
    while todo:
        inner = todo.pop()
        if id(inner) in met:
            continue
        met.add(id(inner))
        yield inner
        wrapped = (*inner.args, inner.__cause__, inner.__context__, getattr(inner, "reason", None))
        todo += [each for each in wrapped if isinstance(each, BaseException)]


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__
