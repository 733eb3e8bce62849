"""`llm-sidecar quantize SOURCE`: make a GPTQ checkpoint of a 16-bit model, and say how to serve it."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from sidecar import gpu, settings, weights
from sidecar.errors import ConfigError
from sidecar.progress import shown
from sidecar.settings import EXIT_USAGE
from sidecar.settings_table import DEVICE, HUB_ID
from sidecar.worker import gptq, gptq_make
from sidecar.worker.gptq_make import Wish
from sidecar.worker.gptq_plan import BITS, GROUP_SIZES

DESCRIPTION = """\
Make a GPTQ checkpoint of a model in 16 or 32 bits. It is read, quantised and written layer by layer,
on a card inside VRAM_BUDGET; for an 8B model that takes a card and some 40 GB of disk, the
download counted. Calibrated with text that comes with the package.
"""
EPILOG = "VRAM_BUDGET, DEVICE, THREADS, HF_HOME and HF_TOKEN of the environment count here too."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (--help lists the flags)\n")


def quantize(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """The exit code; StartError when it can not be done."""
    given = settings.load([], environ)
    options = _parser(given.device).parse_args(argv)
    out: Path = options.out or Path(f"{Path(options.source.partition('@')[0]).name}-GPTQ-{options.bits}bit")
    _check_target(out)
    wish = Wish(
        bits=options.bits,
        group_size=options.group_size,
        device=_settled(options.device),
        threads=given.threads,
        vram_budget_mib=given.vram_budget_mib,
    )
    with shown(partial(print, flush=True)) as show:
        source = weights.find(
            [_local(options.source)],
            partial(show, "download"),
            before_fetch=partial(gptq.look_before, wish=wish, folder=out.absolute().parent),
        )
        gptq_make.make(source, out.absolute(), wish, show)
    print(f"{weights.title(source)} in {options.bits} bits: {weights.stored_mib(out):.1f} MiB in {out}")
    print(f"It is served with MODEL_PATH={shlex.quote(str(out.absolute()))}")
    return 0


def _parser(device: str) -> _Parser:
    parser = _Parser(prog="llm-sidecar quantize", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder with config.json and *.safetensors, or owner/name[@revision]",
    )
    parser.add_argument(
        "--bits", type=int, choices=BITS, default=4, help="4, or 8 for a card alone. Default: %(default)s."
    )
    parser.add_argument(
        "--group-size", type=int, choices=GROUP_SIZES, default=128,
        help="inputs that share a scale: smaller is more exact and takes more memory. Default: %(default)s.",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new folder. Default: NAME-GPTQ-4bit here.")
    parser.add_argument(
        "--device", type=_device, default=device, help="auto, cpu, cuda or cuda:N. Default: %(default)s."
    )
    return parser


def _device(text: str) -> str:
    if not re.fullmatch(DEVICE, text):
        raise argparse.ArgumentTypeError(f"{text!r} can not be used; accepted: auto, cpu, cuda or cuda:N")
    return text


def _settled(device: str) -> str:
    """`auto` takes a card when the driver lists one."""
    if device != "auto":
        return device
    cards = gpu.look()
    return "cuda" if cards and not isinstance(cards, gpu.GpuUnreadable) else "cpu"


def _local(source: str) -> str:
    """A folder as it is; what can only be a path is not asked of the hub."""
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        raise ConfigError(
            f"{source} is a GGUF file, which is quantised in another way; give the model it was made from."
        )
    if path.is_file():
        raise ConfigError(f"{source} is a file; a folder with config.json and *.safetensors is needed.")
    if path.is_dir():
        return str(path.absolute())
    if not re.fullmatch(HUB_ID, source):
        raise ConfigError(f"{source} is neither a folder nor a hub id such as owner/name[@revision].")
    return source


def _check_target(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already; give another folder with --out, or remove it.")
