"""`nvml.c` as the driver's library: for a process that is started with LD_LIBRARY_PATH and NVML_SCRIPT."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")


def compiled(folder: Path) -> Path:
    """The folder, with the library under the name by which it is loaded."""
    output = folder / "libnvidia-ml.so.1"
    subprocess.run(
        ["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(output), str(SOURCE)], check=True
    )
    return folder
