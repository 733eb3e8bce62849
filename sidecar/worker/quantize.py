"""The quantising process: `python -m sidecar.worker.quantize --fd N JOB`.

JOB is a `gptq_make.Job` as JSON, N its end of a socket pair.

gptqmodel reads one layer at a time from the source, puts it on the device, quantises it, and writes
it to the scratch folder before it takes the next: neither the card nor the main memory ever holds
the whole model. It is a process of its own because all that memory, and what gptqmodel starts when
it is imported, is gone when it ends.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sidecar import weights
from sidecar.worker import calibration, gptq_plan, process
from sidecar.worker.gptq_make import PHASE, Job
from sidecar.worker.messages import Progress, Refused
from sidecar.worker.process import Connection

if TYPE_CHECKING:
    import torch

# What says how to load a GPTQ checkpoint; gptqmodel also writes how, when and on what it was made.
CONFIG_KEYS = ("bits", "group_size", "desc_act", "sym", "lm_head", "method", "format", "quant_method",
               "checkpoint_format", "pack_dtype", "static_groups")  # fmt: skip
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
WRITTEN = ("config.json", "quantize_config.json", *WEIGHTS)

NO_MEMORY = (
    "Memory ran out while the model was quantised. Free memory, raise VRAM_BUDGET, or take a GPTQ "
    "checkpoint (MODEL_ID)."
)

Tell = Callable[[float | None, str], None]
Row = dict[str, list[int]]


def quantise(
    source: Path,
    target: Path,
    rows: list[Row],
    *,
    bits: int,
    group_size: int,
    device: torch.device,
    dtype: str,
    scratch: Path,
    tell: Tell,
    batch_size: int = gptq_plan.BATCH_ROWS,
) -> None:
    """Write the GPTQ checkpoint of the model in `source` into the new folder `target`.

    `rows` is what it is calibrated with. `tell` hears the share of the layers that are done.
    """
    tell(None, "importing gptqmodel")
    gptqmodel = _gptqmodel()
    config = gptqmodel.QuantizeConfig(
        bits=bits,
        group_size=group_size,
        sym=True,
        desc_act=False,
        device=str(device),
        offload_to_disk_path=str(scratch),
        # The layers' inputs wait in main memory: on the card they would take gigabytes of the budget.
        calibration_data_device="cpu",
        auto_forward_data_parallel=False,
        wait_for_submodule_finalizers=True,
    )
    model = gptqmodel.GPTQModel.load(str(source), config, dtype=_dtype(dtype), trust_remote_code=False)
    model.subset_callback = _layers_heard(_config(source)["num_hidden_layers"], tell)
    tell(0.0, "first layer")
    model.quantize(rows, batch_size=batch_size)
    tell(1.0, "writing the checkpoint")
    model.save(str(target))
    _tidy(source, target)


def _gptqmodel() -> Any:
    # Both are read at import. It starts no quantisation on two cores with fewer workers than two,
    # and without a card it would compile a packing kernel for half a minute to save seconds.
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
    os.environ.setdefault("GPTQMODEL_DISABLE_PACK_EXT", "1")
    return importlib.import_module("gptqmodel")


def _dtype(name: str) -> torch.dtype:
    import torch

    found: torch.dtype = getattr(torch, name)
    return found


def _config(source: Path) -> dict[str, Any]:
    return dict(json.loads((source / "config.json").read_text(encoding="utf-8")))


def _layers_heard(layers: int, tell: Tell) -> Callable[..., None]:
    """gptqmodel's callback: it names each group of a layer's matrices when that is quantised."""
    began = time.monotonic()

    def heard(*, stage: str, layer_idx: int, subset_index: int, subset_total: int, **_: object) -> None:
        if stage == "quant_complete":
            done = (layer_idx + (subset_index + 1) / subset_total) / layers
            left = gptq_plan.time_left(done, time.monotonic() - began)
            tell(done, f"layer {layer_idx + 1} of {layers}{left}")

    return heard


def _tidy(source: Path, target: Path) -> None:
    """The tokenizer's files as the source has them, and nothing of the machine that made the rest."""
    copied = [
        path.name
        for path in source.iterdir()
        if _matches(path.name, weights.WANTED) and not _matches(path.name, WRITTEN)
    ]
    for name in copied:
        shutil.copyfile(source / name, target / name)
    for path in target.iterdir():
        if path.name not in copied and not _matches(path.name, WRITTEN):
            path.unlink()
    written = _config(target)
    found = written["quantization_config"]
    short = {key: found[key] for key in CONFIG_KEYS if key in found}
    # The rest is the source's: gptqmodel fills in end and padding tokens that the model never had.
    config = _config(source)
    config |= {"dtype": written.get("dtype"), "quantization_config": short}
    config.pop("torch_dtype", None)
    config.pop("_name_or_path", None)
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (target / "quantize_config.json").write_text(json.dumps(short, indent=2) + "\n", encoding="utf-8")


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def run(job: Job, tell: Tell) -> None:
    """Do the job, inside its budget. Raises what the libraries raise."""
    tell(None, "importing torch and transformers")
    threads = job.threads or os.cpu_count() or 1
    process.quieten(threads)
    import torch
    from transformers import AutoTokenizer

    from sidecar.worker import load

    torch.set_num_threads(threads)
    device = load.device_named(job.device)
    load.cap(device, job.vram_budget_mib)
    source, scratch = Path(job.source), Path(job.scratch)
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=True)
    scratch.mkdir(parents=True)
    quantise(
        source,
        Path(job.target),
        calibration.encoded(tokenizer, job.rows),
        bits=job.bits,
        group_size=job.group_size,
        device=device,
        dtype="float16" if device.type == "cuda" and job.dtype == "float32" else job.dtype,
        scratch=scratch,
        tell=tell,
    )


def main() -> int:
    """Do the job; what goes wrong is said over the socket, and is the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sidecar.worker.quantize", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="this end of a socket pair")
    parser.add_argument("job")
    options = parser.parse_args()
    process.die_with_parent()
    connection = Connection(socket.socket(fileno=options.fd))
    process.log_into(connection)
    try:
        run(
            msgspec.json.decode(options.job, type=Job),
            lambda share, detail: connection.send(Progress(PHASE, share, detail)),
        )
    except Exception as error:
        refusal = process.refusal(error, NO_MEMORY)
        connection.send(Refused(refusal.code, refusal.message))
        return refusal.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
