"""Serve one language model: `python server.py --help`."""

from __future__ import annotations

import logging
import os
import sys

EXIT_BUG = 70


def main() -> int:
    """The exit code; a failure is one line, never a traceback, and Ctrl-C at any time is 0."""
    try:
        return _main()
    except KeyboardInterrupt:
        return 0


def _main() -> int:
    # Imported here, where Ctrl-C during the imports is caught too.
    from sidecar.errors import StartError
    from sidecar.serve import serve
    from sidecar.settings import load

    try:
        return serve(load(sys.argv[1:], os.environ))
    except StartError as error:
        print(f"server.py: {error.message}", file=sys.stderr)
        return error.exit_code
    except Exception:
        logging.getLogger("sidecar").exception("the service ended unexpectedly")
        return EXIT_BUG


if __name__ == "__main__":
    sys.exit(main())
