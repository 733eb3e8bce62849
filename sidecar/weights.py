"""Where a profile's model files are: in the package, in a folder, or fetched from the hub.

Only safetensors are ever loaded. A folder with pickled weights or with code of its own is refused
by name, before anything reads it.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sidecar import embedded
from sidecar.errors import ConfigError, WeightsDamaged, WeightsMissing

log = logging.getLogger(__name__)

EMBEDDED = "embedded"
MIB = 1024 * 1024
# Only a model that does not exist sends us on to the next source: a cut line or a full disk must
# not end in another model than the one that was asked for.
NOT_THERE = ("RepositoryNotFoundError", "RevisionNotFoundError", "GatedRepoError")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")
# The files of a model that are data: weights, configuration, tokenizer, chat template.
WANTED = ("*.safetensors", "*.json", "tokenizer.model", "*.jinja")
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def find(sources: Sequence[str], on_progress: Callable[[float, str], None]) -> Path:
    """The folder of the first source that can be had; hub ids may carry `@revision`.

    `on_progress` gets a fraction and a text while files are fetched. Raises WeightsMissing that
    says why each source failed.
    """
    failures = []
    for source in sources:
        if (carried := _carried(source)) is not None:
            return carried
    for source in sources:
        if source == EMBEDDED:
            return embedded.MODEL_DIR
        if (folder := Path(source).expanduser()).is_dir():
            return folder
        if source.startswith(("/", ".", "~")):
            failures.append(f"{source}: no such folder")
            continue
        if failures:
            log.warning("%s; trying %s", failures[-1], source)
        try:
            return _fetch(source, on_progress)
        except Exception as error:  # the hub's client raises errors of many libraries
            failures.append(f"{source}: {type(error).__name__}: {str(error).splitlines()[0][:160]}")
            if type(error).__name__ not in NOT_THERE:
                break
    raise WeightsMissing(
        "No model files could be had. "
        + "; ".join(failures)
        + ". Set MODEL_PATH to a folder, MODEL_ID to a repository, or HF_TOKEN for a gated one."
    )


def _carried(source: str) -> Path | None:
    """The model in the hub cache that an image may carry (`PRELOADED_MODELS`); no network is asked."""
    cache = os.environ.get("PRELOADED_MODELS")
    if not cache or not HUB_ID.fullmatch(source) or not Path(cache).is_dir():
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repository, _, revision = source.partition("@")
    try:
        found = snapshot_download(
            repository, revision=revision or None, cache_dir=Path(cache) / "hub", local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None
    return Path(found)


def _fetch(source: str, on_progress: Callable[[float, str], None]) -> Path:
    from huggingface_hub import snapshot_download  # reads its environment at import
    from tqdm import tqdm

    repository, _, revision = source.partition("@")

    class Bar(tqdm):  # type: ignore[misc]  # tqdm ships no types
        """Counts bytes like any tqdm, and tells instead of drawing."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": False, "file": _Nowhere()})

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            if self.total and self.unit == "B":
                on_progress(min(self.n / self.total, 1.0), f"{repository} {self.n / 1e6:.0f} MB")
            return bool(shown)

    on_progress(0.0, repository)
    return Path(
        snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=list(WANTED),
            ignore_patterns=["consolidated*"],
            tqdm_class=Bar,
        )
    )


class _Nowhere:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def check(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`, if the folder is one that may be loaded.

    Raises WeightsMissing without weights, ConfigError for pickles and code, WeightsDamaged for
    files that are not what their names say.
    """
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise WeightsMissing(f"{folder} holds no config.json; a transformers model folder is needed.")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsDamaged(f"{config_file} is not JSON ({error}); fetch the model again.") from error
    if not isinstance(config, dict):
        raise WeightsDamaged(f"{config_file} holds no JSON object; fetch the model again.")
    if "auto_map" in config:
        raise ConfigError(
            f"{folder} wants to run code of its own (auto_map in config.json), which is never done."
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = sorted(f.name for f in folder.iterdir() if f.suffix in PICKLED)
        raise ConfigError(
            f"{folder} holds no *.safetensors"
            + (f", only pickled weights ({', '.join(pickled[:3])}), which can run code" if pickled else "")
            + ". Convert it to safetensors."
        )
    for file in weights:
        _check_header(file)
    quantize_config = folder / "quantize_config.json"  # where auto-gptq's older versions said it
    if "quantization_config" not in config and quantize_config.is_file():
        config["quantization_config"] = {"quant_method": "gptq", **json.loads(quantize_config.read_text())}
    return dict(config)


def title(folder: Path) -> str:
    """What people call the folder: `owner/name@commit` for one of a hub cache, else its name."""
    if folder == embedded.MODEL_DIR:
        return EMBEDDED
    cached = folder.parent.parent.name
    if folder.parent.name == "snapshots" and cached.startswith("models--"):
        return f"{cached.removeprefix('models--').replace('--', '/', 1)}@{folder.name[:7]}"
    return folder.name


def stored_mib(folder: Path) -> float:
    """The size on disk of the weights that are loaded: those of the index, where there is one."""
    index = folder / "model.safetensors.index.json"
    names = {file.name for file in folder.glob("*.safetensors")}
    if index.is_file():
        names &= set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values())
    return sum((folder / name).stat().st_size for name in names) / MIB


def _check_header(file: Path) -> None:
    """A safetensors file says in its header how long it must be (huggingface/safetensors, format)."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(size, 100_000_000):
            raise WeightsDamaged(f"{file} is not a safetensors file; fetch it again.")
        try:
            header = json.loads(stream.read(length))
            ends = [t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsDamaged(f"{file} has a broken header; fetch it again.") from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise WeightsDamaged(f"{file} has {size} of {expected} bytes; fetch it again.")
