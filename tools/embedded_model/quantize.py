"""4-bit GPTQ of the trained model with gptqmodel: `python -m tools.embedded_model.quantize`.

Calibrated with rows of the training text. Needs g++ and ninja (gptqmodel compiles its packing
kernel at first use). The result is a transformers folder of safetensors.
"""

import argparse
import importlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

# gptqmodel starts no quantisation on two cores without this; it is read at import.
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")

import torch
from tokenizers import Tokenizer

from tools.embedded_model.evaluate import load_tokenizer
from tools.embedded_model.fourbit import BITS, GROUP
from tools.embedded_model.text import SEED, long_rows, rows
from tools.embedded_model.tokens import encode

WORK = Path("build/embedded_model")
CALIBRATION_ROWS = 768
# What a transformers folder of this model holds; gptqmodel writes more than these.
COPIED = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
]
CONFIG_KEYS = ["bits", "group_size", "desc_act", "sym", "lm_head", "method", "format",
               "quant_method", "checkpoint_format", "pack_dtype", "static_groups"]  # fmt: skip


def calibration(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Rows of every kind, as gptqmodel takes them."""
    chosen = [*rows(CALIBRATION_ROWS, SEED + 2), *long_rows(CALIBRATION_ROWS // 16, SEED + 3)]
    encoded = [encode(tokenizer, row)[0] for row in chosen]
    return [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in encoded if len(ids) > 10]


def quantise(source: Path, target: Path) -> None:
    """Write the GPTQ checkpoint of the model in `source` into `target`."""
    gptqmodel: Any = importlib.import_module("gptqmodel")
    config = gptqmodel.QuantizeConfig(bits=BITS, group_size=GROUP, sym=True, desc_act=False)
    model = gptqmodel.GPTQModel.load(str(source), config, device="cpu", dtype=torch.float32)
    model.quantize(calibration(load_tokenizer(source)), batch_size=8)
    shutil.rmtree(target, ignore_errors=True)
    model.save(str(target))


def tidy(source: Path, target: Path) -> None:
    """Keep what says how to load the checkpoint, and nothing of the machine that made it."""
    for name in COPIED:
        shutil.copyfile(source / name, target / name)
    kept = {*COPIED, "config.json", "quantize_config.json", "model.safetensors"}
    for path in target.iterdir():
        if path.name not in kept:
            path.unlink()
    config = json.loads((target / "config.json").read_text())
    found = config["quantization_config"]
    short = {key: found[key] for key in CONFIG_KEYS if key in found}
    config["quantization_config"] = short
    config.pop("_name_or_path", None)
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (target / "quantize_config.json").write_text(json.dumps(short, indent=2) + "\n")


def main() -> None:
    """Quantise build/embedded_model/fp32."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=WORK / "fp32")
    parser.add_argument("--target", type=Path, default=WORK / "gptq")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quantise(options.source, options.target)
    tidy(options.source, options.target)
    size = (options.target / "model.safetensors").stat().st_size
    print(f"{options.target}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
