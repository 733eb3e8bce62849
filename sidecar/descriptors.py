"""How many connections the system lets one process have."""

from __future__ import annotations

import contextlib
import resource

# As many as a single loop could ever serve; some systems allow a billion, and a child that goes
# through all of them when it starts would take minutes.
ENOUGH = 65_536


def allow_many() -> int:
    """Take what the system allows beyond the cautious default (1024 on most), and say how much that is.

    Each client needs one, and a running generation another to the engine.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # refused: then it is what it was
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
