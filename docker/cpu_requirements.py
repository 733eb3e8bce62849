"""The locked requirements with torch's CPU wheel in place of the CUDA build and its libraries.

`python cpu_requirements.py LOCK WHEEL`, WHEEL being an address that ends in `#sha256=...`. With an
empty WHEEL the lock is printed as it is.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# What only a card has use for. nvidia-ml-py asks the driver, and says so when there is none.
CUDA_ONLY = re.compile(r"(torch|triton|cuda-[a-z]+|nvidia-(?!ml-py)[a-z0-9-]+)==")


def without_cuda(lock: str, wheel: str) -> str:
    """The lock for `wheel`; ValueError when that names no sha256."""
    if not wheel:
        return lock
    if not re.search(r"#sha256=[0-9a-f]{64}$", wheel):
        raise ValueError(
            f"TORCH_WHEEL is {wheel!r}; an address that ends in #sha256=<64 hex digits> is needed"
        )
    # A requirement begins in the first column; its hashes and its reasons are indented.
    blocks = re.split(r"(?m)^(?=[a-zA-Z])", lock)
    kept = [block for block in blocks if not CUDA_ONLY.match(block)]
    return "".join(kept) + f"torch @ {wheel}\n"


if __name__ == "__main__":
    try:
        print(without_cuda(Path(sys.argv[1]).read_text(encoding="utf-8"), sys.argv[2]), end="")
    except ValueError as error:
        sys.exit(str(error))
