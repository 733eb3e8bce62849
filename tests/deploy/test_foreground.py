"""`make serve` on a terminal: who has it, who hears what, and how it ends."""

from __future__ import annotations

import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FOREGROUND = [sys.executable, str(Path(__file__).parents[2] / "tools" / "foreground.py")]
MINE = "import os; print('mine:', os.tcgetpgrp(0) == os.getpgrp(), flush=True)\n"
# Says the signal that ends it, and ends with 7.
HEARS = MINE + (
    "import signal, sys, time\n"
    "def end(number, _):\n"
    "    open({said!r}, 'w').write(signal.Signals(number).name)\n"
    "    sys.exit(7)\n"
    "for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):\n"
    "    signal.signal(number, end)\n"
    "print('up', flush=True)\n"
    "time.sleep(20)\n"
)


class Terminal:
    """A terminal with one command as its session's leader."""

    def __init__(self, command: list[str], errors: Path) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
            os.execv(command[0], command)
        self.shown = ""
        self._code: int | None = None

    def until(self, words: str, seconds: float = 10.0) -> None:
        """Read until these words were shown."""
        deadline = time.monotonic() + seconds
        while words not in self.shown:
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, self.shown
            self.shown += os.read(self.master, 4096).decode()

    def type(self, text: str) -> None:
        """As from the keyboard."""
        os.write(self.master, text.encode())

    def vanish(self) -> None:
        """The window is closed."""
        os.close(self.master)
        self.master = -1

    def end(self, seconds: float = 10.0) -> int:
        """The leader's exit code, -n for a signal."""
        deadline = time.monotonic() + seconds
        while self._code is None:
            assert time.monotonic() < deadline, self.shown
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self._code = os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        return self._code

    def clear(self) -> None:
        """Whatever the test left behind."""
        if self.master >= 0:
            os.close(self.master)
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@contextmanager
def terminal(command: list[str], tmp_path: Path) -> Iterator[Terminal]:
    found = Terminal(command, tmp_path / "errors")
    try:
        yield found
        assert "Traceback" not in (tmp_path / "errors").read_text()
    finally:
        found.clear()


def test_without_a_terminal_the_command_just_runs() -> None:
    code = "import os, sys; print(os.getpid()); sys.exit(3)"
    with subprocess.Popen(
        [*FOREGROUND, sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        printed, _ = process.communicate(timeout=10)
    assert (int(printed), process.returncode) == (process.pid, 3)


def test_ctrl_c_reaches_the_command_alone(tmp_path: Path) -> None:
    said = tmp_path / "said"
    with terminal([*FOREGROUND, sys.executable, "-c", HEARS.format(said=str(said))], tmp_path) as shown:
        shown.until("up\r\n")
        assert "mine: True" in shown.shown
        shown.type("\x03")
        assert shown.end() == 7
    assert said.read_text() == "SIGINT"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_for_us_is_for_the_command(tmp_path: Path, number: signal.Signals) -> None:
    said = tmp_path / "said"
    with terminal([*FOREGROUND, sys.executable, "-c", HEARS.format(said=str(said))], tmp_path) as shown:
        shown.until("up\r\n")
        os.kill(shown.pid, number)
        assert shown.end() == 7
    assert said.read_text() == number.name


def test_a_terminal_that_is_gone_hides_no_exit_code(tmp_path: Path) -> None:
    said = tmp_path / "said"
    with terminal([*FOREGROUND, sys.executable, "-c", HEARS.format(said=str(said))], tmp_path) as shown:
        shown.until("up\r\n")
        shown.vanish()
        assert shown.end() == 7
    assert said.read_text() == "SIGHUP"


def shell(script: str, tmp_path: Path) -> list[str]:
    """bash with job control; `$RUN` is the command under foreground.py."""
    file = tmp_path / "command.py"
    file.write_text(MINE + "import time; time.sleep(float(os.environ.get('FOR', '0')))\n")
    run = shlex.join([*FOREGROUND, sys.executable, str(file)])
    return ["/bin/bash", "--norc", "-i", "-c", f"RUN={shlex.quote(run)}\n{script}"]


def test_in_the_background_it_leaves_the_terminal_to_the_shell(tmp_path: Path) -> None:
    whose = shlex.join([sys.executable, "-c", MINE.replace("mine", "shell")])
    with terminal(shell(f"$RUN & wait $!; {whose}; echo ended $?", tmp_path), tmp_path) as shown:
        shown.until("ended 0")
    assert "mine: False" in shown.shown
    assert "shell: True" in shown.shown


def test_ctrl_z_and_bg_leave_the_terminal_to_the_shell(tmp_path: Path) -> None:
    """`read` is the shell's own: it fails where somebody else has the terminal."""
    script = "export FOR=3\n$RUN\necho stopped; bg\nread line; echo got $line; jobs -r; wait; echo ended"
    with terminal(shell(script, tmp_path), tmp_path) as shown:
        shown.until("mine: True")
        shown.type("\x1a")
        shown.until("stopped")
        time.sleep(0.5)
        shown.type("words\n")
        shown.until("got words")
        shown.until("Running")
        shown.until("ended")
