"""Lets a test lower the cap of a worker on a card from outside; on PYTHONPATH of that worker alone.

On a CPU `prlimit` does this to any process; the cap of CUDA's allocator can only be set from within, and
the product shall have no hook for it. SIGUSR1 leaves what is held and a little more, SIGUSR2 gives all back.
"""

from __future__ import annotations

import signal
import sys

# The allocator grows by segments of 20 MiB. A step of one token for each of a few requests takes some;
# one layer of an 8B model makes 170 MiB of 2048 tokens.
MORE_BYTES = 96 * 1024 * 1024


def lower(*_: object) -> None:
    """Between two steps of the loop: the main thread is the loop, and signals are the main thread's."""
    import torch

    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + MORE_BYTES) / total)


def restore(*_: object) -> None:
    """As much as there is: what follows is one request."""
    import torch

    torch.cuda.set_per_process_memory_fraction(1.0)


if "sidecar.worker" in sys.orig_argv:
    signal.signal(signal.SIGUSR1, lower)
    signal.signal(signal.SIGUSR2, restore)
