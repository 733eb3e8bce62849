"""Run a command as the terminal's foreground job, so that Ctrl-C is its alone.

`make` dies of the same Ctrl-C as the server under it and reports an error, however cleanly the
server stops. In a process group of its own the server hears it alone, and its exit code counts.
Without a terminal, or in the background of one, the command just runs in our place.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

TERMINAL = 0
# What is meant for the command and reaches us alone, as by `kill` or `docker stop`.
FORWARDED = (signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run argv[1:]; its exit code, 128 + n for a signal."""
    command = sys.argv[1:]
    own = os.getpgrp()
    if _foreground() != own:
        os.execv(command[0], command)
    # Whoever is not in the foreground group and hands the terminal over would be stopped by this.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    # Held back until somebody is there to forward them.
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(TERMINAL, os.getpgrp())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        os.execv(command[0], command)
    with contextlib.suppress(OSError):  # whichever of the two is first
        os.setpgid(child, child)
    for number in FORWARDED:
        signal.signal(number, lambda number, _: _signal(child, number))
    signal.signal(signal.SIGCONT, lambda *_: _continue(child, own))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    try:
        return _wait(child, own)
    finally:
        _hand_over(child, own)


def _foreground() -> int | None:
    """The process group that the terminal belongs to; None without a terminal of our own."""
    try:
        return os.tcgetpgrp(TERMINAL)
    except OSError:
        return None


def _hand_over(before: int, after: int) -> None:
    """Only what is ours to give: a shell that took the terminal back keeps it."""
    if _foreground() == before:
        with contextlib.suppress(OSError):
            os.tcsetpgrp(TERMINAL, after)


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, number)


def _continue(child: int, own: int) -> None:
    """After Ctrl-Z: `fg` gave us the terminal, `bg` did not."""
    _hand_over(own, child)
    _signal(child, signal.SIGCONT)


def _wait(child: int, own: int) -> int:
    """Wait for the end; pass Ctrl-Z on to our own group."""
    while True:
        _, status = os.waitpid(child, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        _hand_over(child, own)
        os.killpg(own, signal.SIGSTOP)


if __name__ == "__main__":
    sys.exit(main())
