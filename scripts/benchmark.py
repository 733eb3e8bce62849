#!/usr/bin/env python3
"""How fast a server answers: `llm-sidecar bench`, found as the other scripts find it (sidecar.sh).

It runs on any Python 3: what measures is the sidecar's own environment. A container would not do, since
an address of this machine is another one there.
"""

import os
import sys

FIND = 'service=; . "$(dirname "$0")/sidecar.sh"; sidecar bench "$@"'

if __name__ == "__main__":
    os.execv("/bin/sh", ["sh", "-c", FIND, os.path.abspath(__file__), *sys.argv[1:]])
