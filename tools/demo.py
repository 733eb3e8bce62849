"""What the watchdog and the drain do, as one time line: `make demo` (Docker, no card, about a minute).

The real stack with the CPU image. Only `nvidia-smi` is a stand-in: it reads its figures from a file, and
this program writes them. `--svg FILE` keeps the time line as a picture.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from tests.docker.stack import CPU, SIDECAR, WATCHDOG, Stack, stack

LEAK = ("10780", "10791", "10803", "10803", "6210")
# Its ends are forbidden, so that the story goes on for as long as the three strikes take.
STREAM = {
    "prompt": "Tell me a story.",
    "max_tokens": 1900,
    "stream": True,
    "timeout": 300,
    "logit_bias": {"0": -100, "2": -100},
}
COLOURS = {"demo": "white", "client": "cyan", "sidecar": "green", "watchdog": "yellow", "docker": "magenta"}


class TimeLine:
    """One line for each thing that happens, from any thread."""

    def __init__(self) -> None:
        self.console = Console(record=True, width=124, highlight=False)
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def say(self, who: str, what: str) -> None:
        """`who` did `what` just now."""
        with self._lock:
            at = time.monotonic() - self._began
            self.console.print(Text(f"{at:7.1f} s  {who:<9} {what}", style=COLOURS[who]))


def main() -> int:
    """Build what is missing, then play the story; 1 when an answer was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--svg", type=Path, help="where to keep the time line as a picture")
    options = parser.parse_args()
    files = [part for file in CPU for part in ("-f", file)]
    print("Building the images, if they are not there yet ...", flush=True)
    subprocess.run(["docker", "compose", *files, "build", "--quiet", SIDECAR, WATCHDOG], check=True)
    with tempfile.TemporaryDirectory() as folder:
        line = TimeLine()
        line.say("demo", "docker compose up llm-sidecar")
        with stack(Path(folder) / "stack", _free_port()) as project:
            whole = play(project, line)
    if options.svg:
        # Without the web fonts that rich would have the reader's browser fetch.
        plain = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
        line.console.save_svg(str(options.svg), title="make demo", code_format=plain)
    return 0 if whole else 1


def play(project: Stack, line: TimeLine) -> bool:
    """Three strikes, the drain, a stream that ends whole, the restart, the next answer."""
    line.say("sidecar", f"ready; asked for the capital of France: {_answer(project)}")
    done = threading.Event()
    result: list[bool] = []
    streamed = threading.Thread(target=lambda: result.append(_stream(project, line)))
    watchers = [
        threading.Thread(target=watch, args=(project, line, done), daemon=True)
        for watch in (_watch_readiness, _follow_watchdog, _follow_engine)
    ]
    for watcher in watchers:
        watcher.start()
    streamed.start()
    time.sleep(1)
    line.say("demo", f"from now on nvidia-smi says {', '.join(LEAK[:3])} MiB: more than the budget of 10752")
    project.readings(*LEAK)
    before = project.started_at()
    while project.started_at() == before or not project.ready():
        time.sleep(0.1)
    streamed.join(60)
    line.say("client", f"asks again: {_answer(project)}")
    time.sleep(2)  # for the watchdog's last word
    done.set()
    return result == [True]


def _answer(project: Stack) -> str:
    return str(project.ask()[1]["generated_text"]).strip()


def _stream(project: Stack, line: TimeLine) -> bool:
    """One long stream; whether its end was `[DONE]`."""
    request = urllib.request.Request(
        project.url + "/v1/completions", json.dumps(STREAM).encode(), {"content-type": "application/json"}
    )
    line.say("client", f"begins to stream a story of {STREAM['max_tokens']} tokens")
    pieces, last = 0, ""
    with urllib.request.urlopen(request, timeout=120) as answer:
        for raw in answer:
            if text := raw.decode().strip():
                pieces, last = pieces + 1, text
    whole = last == "data: [DONE]"
    ended = "whole" if whole else "CUT"
    line.say("client", f"the stream ended {ended}: {pieces - 1} events, the last: {last[:60]}")
    return whole


def _watch_readiness(project: Stack, line: TimeLine, done: threading.Event) -> None:
    said = "ready"
    while not done.wait(0.05):
        status, body = project.get("/readyz")
        state = body["status"] if body else "away"
        if state != said and (state != "away" or said == "draining"):
            line.say("sidecar", f"/readyz {status or 'closed'}: {state}")
            if state == "draining":
                refused, told = project.ask()
                line.say("client", f"a new request now: {refused} {told['error']['code']}, come back later")
        said = state


def _follow_watchdog(project: Stack, line: TimeLine, done: threading.Event) -> None:
    for said in _lines(["docker", "logs", "-f", "--since", "0s", project.container(WATCHDOG)], done):
        with contextlib.suppress(ValueError, KeyError):
            line.say("watchdog", json.loads(said)["message"])


def _follow_engine(_: Stack, line: TimeLine, done: threading.Event) -> None:
    wanted = {"kill": "SIGTERM to the sidecar", "die": "the sidecar has ended", "restart": "restarted"}
    command = ["docker", "events", "--filter", f"container={SIDECAR}", "--format"]
    for said in _lines([*command, '{{.Action}} {{index .Actor.Attributes "exitCode"}}'], done):
        action, _space, code = said.partition(" ")
        if action in wanted:
            line.say("docker", wanted[action] + (f" with exit code {code}" if action == "die" else ""))


def _lines(command: list[str], done: threading.Event) -> Iterator[str]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        threading.Thread(target=_kill_when, args=(done, process), daemon=True).start()
        assert process.stdout is not None
        for text in process.stdout:
            if not done.is_set():
                yield text.strip()


def _kill_when(done: threading.Event, process: subprocess.Popen[str]) -> None:
    done.wait()
    process.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
