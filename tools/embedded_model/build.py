"""All steps from nothing to the committed files: `python -m tools.embedded_model.build`.

Trains (or goes on training), quantises, exports, evaluates, and writes `sidecar/embedded/`
with its report and checksums. Every step can also be run alone.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from sidecar.embedded import HERE, MODEL_DIR, REPORT, SHA256SUMS
from tools.embedded_model.batches import LONG_ROWS, ROWS
from tools.embedded_model.evaluate import load, load_tokenizer, overlap, share_right
from tools.embedded_model.fourbit import BITS, GROUP
from tools.embedded_model.text import HELD_OUT_SEED, held_out
from tools.embedded_model.tokens import CONTEXT, VOCABULARY

WORK = Path("build/embedded_model")
STEPS = ["train", "quantize", "export_gguf"]


def artefacts(folder: Path = HERE) -> list[Path]:
    """The files that are committed as package data, but for the sums and the report."""
    return sorted([*folder.glob("model/*"), *folder.glob("*.gguf")])


def measured(folder: Path) -> dict[str, Any]:
    """How many of the held-out questions the model in `folder` answers, by task."""
    questions = held_out()
    share, wrong = share_right(load(folder), load_tokenizer(folder), questions, show=True)
    asked = Counter(question.task for question in questions)
    missed = Counter(question.task for question, _ in wrong)
    tasks = {task: f"{count - missed[task]}/{count}" for task, count in sorted(asked.items())}
    return {"share_right": round(share, 4), "tasks": tasks}


def place(work: Path) -> None:
    """Copy what the steps made to where the package has it."""
    shutil.rmtree(MODEL_DIR, ignore_errors=True)
    shutil.copytree(work / "gptq", MODEL_DIR)
    for path in work.glob("*.gguf"):
        shutil.copyfile(path, HERE / path.name)


def report(work: Path) -> dict[str, Any]:
    """What there is to know about the files: shares, seeds, time, sizes."""
    training = json.loads((work / "training.json").read_text())
    return {
        "held_out": {
            "questions": len(held_out()),
            "seed": HELD_OUT_SEED,
            "equal_to_a_training_line": overlap(ROWS, LONG_ROWS),
        },
        "fp32": measured(work / "fp32"),
        "gptq": {"bits": BITS, "group_size": GROUP, **measured(work / "gptq")},
        "training": {**training, "rows": ROWS, "long_rows": LONG_ROWS},
        "vocabulary": VOCABULARY,
        "context": CONTEXT,
        "bytes": {str(path.relative_to(HERE)): path.stat().st_size for path in artefacts()},
    }


def checksums() -> str:
    """The lines of SHA256SUMS, as sha256sum writes them."""
    sums = [(hashlib.sha256(path.read_bytes()).hexdigest(), path) for path in artefacts()]
    return "".join(f"{digest}  {path.relative_to(HERE)}\n" for digest, path in sums)


def main() -> None:
    """Run every step that is not skipped, then write the package data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skip", nargs="*", choices=STEPS, default=[], help="steps done before")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for step in STEPS:
        if step not in options.skip:
            subprocess.run([sys.executable, "-m", f"tools.embedded_model.{step}"], check=True)
    place(WORK)
    found = report(WORK)
    REPORT.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    SHA256SUMS.write_text(checksums())
    print(f"right: fp32 {found['fp32']['share_right']:.1%}, GPTQ {found['gptq']['share_right']:.1%}")


if __name__ == "__main__":
    main()
