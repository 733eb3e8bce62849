"""4-bit GPTQ of the trained model: `python -m tools.embedded_model.quantize`.

The work is `sidecar.worker.quantize`'s; the rows that it is calibrated with are the training text's.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from sidecar.worker.quantize import quantise
from tools.embedded_model.evaluate import load_tokenizer
from tools.embedded_model.fourbit import BITS, GROUP
from tools.embedded_model.text import SEED, long_rows, rows
from tools.embedded_model.tokens import encode

WORK = Path("build/embedded_model")
CALIBRATION_ROWS = 768


def calibration(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Rows of every kind, as gptqmodel takes them."""
    chosen = [*rows(CALIBRATION_ROWS, SEED + 2), *long_rows(CALIBRATION_ROWS // 16, SEED + 3)]
    encoded = [encode(tokenizer, row)[0] for row in chosen]
    return [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in encoded if len(ids) > 10]


def main() -> None:
    """Quantise build/embedded_model/fp32."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=WORK / "fp32")
    parser.add_argument("--target", type=Path, default=WORK / "gptq", help="a new folder")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        quantise(
            options.source,
            options.target,
            calibration(load_tokenizer(options.source)),
            bits=BITS,
            group_size=GROUP,
            device=torch.device("cpu"),
            dtype="float32",
            scratch=Path(scratch),
            tell=lambda _, detail: print(detail),
        )
    size = (options.target / "model.safetensors").stat().st_size
    print(f"{options.target}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
