"""The process: what it prints, what signals do, how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from sidecar.announce import address
from sidecar.engine import Ready
from sidecar.errors import ConfigError
from sidecar.events import read
from sidecar.listening import listening
from sidecar.serve import _refused
from sidecar.settings import Settings
from tests.fakes.engine import ANSWER

ROOT = Path(__file__).parents[2]


class Process:
    """One running program, read line by line."""

    def __init__(self, *argv: str, **environ: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.serve_scripted", "--port", "0", *argv],
            cwd=ROOT,
            env={**os.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.printed = ""

    def line(self, pattern: str) -> re.Match[str]:
        assert self._process.stdout
        for line in self._process.stdout:
            self.printed += line
            if found := re.search(pattern, line):
                return found
        raise AssertionError(self.printed)

    def url(self) -> str:
        return self.line(r"Listening on (\S+)")[1]

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        rest, _ = self._process.communicate(timeout=10)
        self.printed += rest
        return self._process.returncode

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def started() -> Iterator[Callable[..., Process]]:
    running: list[Process] = []

    def start(*argv: str, **environ: str) -> Process:
        running.append(Process(*argv, **environ))
        return running[-1]

    yield start
    for process in running:
        process.kill()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_phase_then_the_facts_then_a_clean_end(started: Callable[..., Process]) -> None:
    process = started(LOADING="1")
    url = process.url()
    assert httpx.get(f"{url}/health").json()["phase"] == "load"
    process.line("load 50%")
    process.signal(signal.SIGUSR1)
    process.line(rf"Ready\s+{re.escape(url)}")
    for fact in ("profile", "device", "dtype", "capacity", "answer"):
        process.line(fact)
    assert f'"{ANSWER}"' in process.printed
    assert "tokens/s" in process.printed
    command = process.line(r"(curl .*)")[1]
    found = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=10)
    assert ANSWER in found.stdout
    process.signal(signal.SIGINT)
    assert process.end() == 0
    assert "engine stopped" in process.printed
    assert "Traceback" not in process.printed


def test_sigterm_lets_a_running_answer_finish(started: Callable[..., Process]) -> None:
    process = started()
    url = process.url()
    process.line("curl")
    body = {"prompt": "[hold:2]", "stream": True, "timeout": 1}
    with httpx.stream("POST", f"{url}/v1/completions", json=body) as answer:
        process.signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
        refused = httpx.post(f"{url}/generate", json={"prompt": "hi"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert '"code":"timeout"' in answer.read().decode()
    assert process.end() == 0


def test_a_drain_ends_after_its_time(started: Callable[..., Process]) -> None:
    process = started("--drain_seconds", "0.2")
    url = process.url()
    process.line("curl")
    body = {"prompt": "[hold:2]", "stream": True}
    with httpx.stream("POST", f"{url}/v1/completions", json=body) as answer:
        process.signal(signal.SIGTERM)
        assert '"code":"draining"' in answer.read().decode()
    assert process.end() == 0


def test_a_second_signal_skips_the_drain(started: Callable[..., Process]) -> None:
    process = started()
    url = process.url()
    process.line("curl")
    body = {"prompt": "[hold:2]", "stream": True}
    with httpx.stream("POST", f"{url}/v1/completions", json=body) as answer:
        process.signal(signal.SIGINT)
        until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
        process.signal(signal.SIGINT)
        assert '"code":"draining"' in answer.read().decode()
    assert process.end() == 0


def test_each_boot_tells_in_the_file_of_events_how_it_ended(
    started: Callable[..., Process], tmp_path: Path
) -> None:
    for _ in range(2):
        process = started(CONTROL_SOCKET=str(tmp_path / "control.sock"))
        url = process.url()
        process.signal(signal.SIGTERM)
        assert process.end() == 0
    found = read(tmp_path / "events.jsonl")
    assert [event["kind"] for event in found] == ["start", "stop", "stopped"] * 2
    assert len({event["boot_id"] for event in found}) == 2
    shown = subprocess.run(
        [sys.executable, "-m", "sidecar", "events", "--url", url],
        cwd=ROOT,
        env={**os.environ, "EVENTS_FILE": str(tmp_path / "events.jsonl")},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert shown.stdout.count("drained: ") == 2, shown.stderr


def test_nobody_reading_what_it_prints_does_not_end_it() -> None:
    """`python server.py | head -1`: the pipe is closed before the ready screen."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.serve_scripted", "--port", str(port)],
        cwd=ROOT,
        env={**os.environ, "LOADING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stderr
    try:
        assert process.stdout.readline().startswith("Listening on")
        process.stdout.close()
        process.send_signal(signal.SIGUSR1)
        url = f"http://127.0.0.1:{port}"
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        # The first question is the last thing before the ready screen.
        until(lambda: 'status="success"} 1.0' in httpx.get(f"{url}/metrics").text)
        time.sleep(0.2)
        assert httpx.post(f"{url}/generate", json={"prompt": "hi"}).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert "Error" not in process.stderr.read()
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


def test_an_announcement_that_fails_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> Ready:
        raise RuntimeError("no words")

    async def story() -> None:
        waiting = asyncio.create_task(_refused(fails()))
        done, _ = await asyncio.wait([waiting], timeout=0.05)
        assert not done
        waiting.cancel()

    asyncio.run(story())
    assert "no words" in caplog.text


def test_an_open_address_without_a_key_is_said(started: Callable[..., Process]) -> None:
    process = started("--host", "0.0.0.0")
    process.line("Warning: 0.0.0.0 .* no API_KEY")
    assert process.url().startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        (Settings(host="127.0.0.1"), "http://127.0.0.1:{}"),
        (Settings(host="0.0.0.0", publish_address="127.0.0.1", publish_port=9000), "http://127.0.0.1:9000"),
        (Settings(host="0.0.0.0", publish_address="0.0.0.0", publish_port=0), "http://127.0.0.1:{}"),
        (Settings(host="0.0.0.0", publish_address="192.0.2.7", publish_port=80), "http://192.0.2.7:80"),
        (Settings(host="::"), "http://[::1]:{}"),
    ],
)
def test_what_is_announced_is_where_people_reach_it(settings: Settings, url: str) -> None:
    with listening("127.0.0.1", 0) as listener:
        assert address(settings, listener) == url.format(listener.getsockname()[1])


def server(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "server.py", *argv],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=20,
    )


def test_a_taken_port_is_71_before_anything_loads() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = server("--port", str(taken.getsockname()[1]))
    assert ended.returncode == 71
    assert ended.stderr.count("\n") == 1
    assert "--port" in ended.stderr


def test_the_listener_says_that_it_is_tcp() -> None:
    """Otherwise asyncio leaves Nagle's delay on, and answers on kept connections take 40 ms."""
    with listening("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        assert accepted.proto == socket.IPPROTO_TCP
        accepted.close()


def test_a_host_without_an_address_is_78() -> None:
    with (
        pytest.raises(ConfigError, match=r"HOST='no-such-host\.invalid'"),
        listening("no-such-host.invalid", 0),
    ):
        pass


def test_exit_codes_of_mistakes() -> None:
    assert server("--help").returncode == 0
    assert server("--nope").returncode == 64
    bad = server(PORT="http")
    assert (bad.returncode, bad.stdout) == (78, "")
    assert bad.stderr == "server.py: PORT='http' can not be used; accepted: a number from 0 to 65535\n"
