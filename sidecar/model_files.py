"""Where the GGUF files of a profile are: given, in a folder, in the hub's cache, or fetched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sidecar import embedded, gguf
from sidecar.errors import WeightsMissing


class Source(Protocol):
    """What is read of a profile's `llamacpp:` block; an empty text is nothing."""

    @property
    def model_root(self) -> str: ...  # noqa: D102 - the profile's own field, described there
    @property
    def hf_repo_id(self) -> str: ...  # noqa: D102
    @property
    def hf_filename(self) -> str: ...  # noqa: D102
    @property
    def hf_revision(self) -> str: ...  # noqa: D102
    @property
    def sha256(self) -> str: ...  # noqa: D102
    @property
    def model_path(self) -> str: ...  # noqa: D102
    @property
    def mmproj_filename(self) -> str: ...  # noqa: D102
    @property
    def mmproj_sha256(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class LlamaFiles:
    """What llama-server is given; `mmproj` is the image encoder of a model that sees."""

    model: Path
    mmproj: Path | None


def llama_files(
    block: Source,
    *,
    cache_dir: Path | None,
    model_path: Path | None,
    on_progress: Callable[[float, str], None],
) -> LlamaFiles:
    """The files of the profile, whole as far as their headers tell; fetched where they are not here.

    `model_path` is MODEL_PATH, which goes before everything; `cache_dir` is LLM_CACHE_DIR, which
    stands for `/models`. `on_progress` gets a fraction and a text while files are fetched. Raises
    WeightsMissing, WeightsDamaged and ConfigError.
    """
    path = embedded.GGUF_Q8_0 if block.model_path == "embedded" else model_path or Path(block.model_path)
    if not path.is_file():
        raise WeightsMissing(f"{path}: no such file")
    gguf.check(path)
    on_progress(1.0, path.name)
    return LlamaFiles(path, None)
