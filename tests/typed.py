"""`llm-sidecar` as it is typed, in the process of the tests: nobody waits for another Python's imports.

What reads its environment while it is imported (the hub's client) is not told a new one here.
"""

from __future__ import annotations

import contextlib
import io
import os
from unittest import mock

from sidecar.cli import main


def typed(*words: str, **environ: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error, with these variables alone."""
    said, wrong = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, {"PATH": "/usr/bin:/bin", **environ}, clear=True),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(wrong),
    ):
        try:
            code = main(words)
        except SystemExit as end:  # of argparse
            code = int(end.code or 0)
    return code, said.getvalue(), wrong.getvalue()
