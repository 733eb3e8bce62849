"""`python leash.py PARENT COMMAND ...`: become COMMAND, which the kernel kills when PARENT ends.

Run as a file, by an interpreter without `site`: it lives for some milliseconds before it is the
command. A server that is killed with SIGKILL can do nothing about its children any more; without
this, llama-server would go on holding the card.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h; survives execve


def main() -> None:
    """Never returns: it is the command from then on, or ends with 127 as a shell does."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was told
        sys.exit(1)
    try:
        os.execv(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()
