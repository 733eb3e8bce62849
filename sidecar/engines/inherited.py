"""What of our own environment llama-server gets: what it and its libraries need, and nothing else.

Everything else stays here. A key has a hundred names (`OPENAI_API_KEY`, `LITELLM_MASTER_KEY`,
`DATABASE_URL`), and some variables would overrule the command line: `LLAMA_ARG_*`, `LLAMA_LOG_*`,
`MTMD_*`, and `AIP_HTTP_PORT`, by which a hosting service has it listen elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

# Where programs, libraries and caches lie, how text is written, what the time is.
_NAMES = frozenset({"PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "LANGUAGE", "TZ", "GLIBC_TUNABLES"})
_FAMILIES = (
    "LC_", "LD_", "DYLD_", "XDG_", "MALLOC_",
    "GGML_",
    "OMP_", "GOMP_", "KMP_", "OPENBLAS_", "BLIS_", "MKL_",  # threads and arithmetic of a CPU
    "CUDA_", "CUBLAS_", "NVIDIA_", "NCCL_",
    "HIP_", "HSA_", "ROC",  # ROCM_, ROCR_, ROCBLAS_: AMD's cards
    "VK_", "MESA_", "RADV_", "ONEAPI_", "SYCL_", "ZE_", "UR_", "MUSA_", "ASCEND_",
)  # fmt: skip
# NVIDIA_API_KEY is a key of NVIDIA's hosted models, whatever its family.
_SECRET = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)")


def inherited(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that an engine is started with, besides those that are meant for it."""
    return {
        name: value
        for name, value in environ.items()
        if (name in _NAMES or name.startswith(_FAMILIES)) and not _SECRET.search(name)
    }
