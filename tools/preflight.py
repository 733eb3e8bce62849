"""What `make install` needs, checked before it starts. Standard library only; any Python 3 runs it.

Some dependencies come as source: gptqmodel's `pypcre` compiles C against Python's headers.
"""

import os
import shutil
import sys
import sysconfig
from typing import Iterator

GIB = 1024**3
NEEDED_GIB = 8


def missing() -> Iterator[str]:
    """One line for each thing that is missing, with the package that brings it."""
    if sys.version_info < (3, 11):
        yield (
            "Python %d.%d is too old: 3.11 or newer is needed (PYTHON=/path/to/python3.11 make install)"
            % (sys.version_info[:2])
        )
    if sys.platform != "linux":
        yield f"this is {sys.platform}; Linux is needed"
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        yield "no C compiler: install gcc (Debian, Ubuntu: apt install gcc)"
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        yield "no Python headers: install python3-dev (Fedora: python3-devel)"
    try:
        import ensurepip  # noqa: F401 - only whether it is there
    except ImportError:
        yield "no ensurepip: install python3-venv"
    free = shutil.disk_usage(".").free
    if free < NEEDED_GIB * GIB and not os.path.exists(".venv"):
        yield f"{free / GIB:.1f} GiB of disk are free here; {NEEDED_GIB} are needed"


def main() -> int:
    """Exit 1 with the list, or silently 0."""
    found = list(missing())
    for line in found:
        print("make install: " + line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
