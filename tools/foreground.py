"""Run a command as the terminal's foreground job, so that Ctrl-C is its alone.

`make` dies of the same Ctrl-C as the server under it and reports an error, however cleanly the
server stops. In a process group of its own the server hears it alone, and its exit code counts.
Without a terminal the command just runs.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Run argv[1:]; its exit code, 128 + n for a signal."""
    command = sys.argv[1:]
    if not sys.stdin.isatty():
        os.execv(command[0], command)
    own = os.getpgrp()
    # Whoever is not in the foreground group and hands the terminal over would be stopped by this.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpgrp())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        os.execv(command[0], command)
    try:
        return _wait(child, own)
    finally:
        os.tcsetpgrp(0, own)


def _wait(child: int, own: int) -> int:
    """Wait for the end; pass Ctrl-Z on to our own group and its continuation back."""
    while True:
        _, status = os.waitpid(child, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        os.tcsetpgrp(0, own)
        os.killpg(own, signal.SIGSTOP)
        os.tcsetpgrp(0, child)
        os.killpg(child, signal.SIGCONT)


if __name__ == "__main__":
    sys.exit(main())
