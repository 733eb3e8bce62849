"""Serve one language model: `python server.py --help`."""

from __future__ import annotations

import sys


def main() -> int:
    """The exit code; a failure is one line, never a traceback, and Ctrl-C at any time is 0."""
    try:
        # Imported here, where Ctrl-C during the imports is caught too.
        from sidecar.cli import run, serve

        return run("server.py", serve, sys.argv[1:])
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
