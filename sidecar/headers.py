"""What the files of a profile say of the model: read from disk, or by ranges from the hub.

Nothing is fetched but headers (some megabytes of a GGUF file, which holds its vocabulary there).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from sidecar import gguf, hub, hub_cache, model_shape, stored, weights
from sidecar.budget import MIB
from sidecar.errors import ConfigError, StartError, WeightsDamaged
from sidecar.gguf import GgufHeader
from sidecar.hub_errors import explained
from sidecar.llama_args import LlamaFiles
from sidecar.model_files import whole_files
from sidecar.profiles import LlamaCpp, Profile
from sidecar.remote_file import RemoteFile
from sidecar.stored import Model, Stored, StoredTensor

Progress = Callable[[str], None]
BYTES_OF_LENGTH = 8  # before the header of a safetensors file


@dataclass(frozen=True, slots=True)
class Described:
    """The model, and where it was read; `config` is the `config.json` of a transformers model."""

    model: Model
    where: str
    config: Mapping[str, Any] = field(default_factory=dict)


def described(profile: Profile, cache_dir: Path | None, on_progress: Progress) -> Described:
    """The model of the profile. Raises StartError that says why nothing could be read."""
    return described_here(profile, cache_dir) or described_on_hub(profile, on_progress)


def described_on_hub(profile: Profile, on_progress: Progress) -> Described:
    """The same where its files are not here. Raises StartError that says why nothing could be read."""
    if profile.backend == "llamacpp":
        assert profile.llamacpp is not None
        return _remote_llama(profile.llamacpp, on_progress)
    assert profile.transformers is not None
    return of_hub(profile.transformers.sources, on_progress)


def of_hub(sources: Iterable[str], on_progress: Progress) -> Described:
    """The transformers model of the first of `sources` that the hub has. Raises StartError."""
    return _remote_safetensors(weights.first_on_hub(sources), on_progress)


def described_here(profile: Profile, cache_dir: Path | None) -> Described | None:
    """The model of the profile, if all its files are here.

    Raises StartError where they are damaged, or can only be here and are not.
    """
    if profile.backend == "llamacpp":
        assert profile.llamacpp is not None
        files = whole_files(profile.llamacpp, cache_dir)
        return None if files is None else Described(of_files(files), str(files.model))
    assert profile.transformers is not None
    folder = weights.find_here(profile.transformers.sources)
    return None if folder is None else of_folder(folder)


def of_files(files: LlamaFiles) -> Model:
    """A GGUF model that is here, in all its parts."""
    paths = [files.model.with_name(name) for name in gguf.part_names(files.model.name)]
    headers = []
    for path in paths:
        with path.open("rb") as stream:
            headers.append(gguf.read(stream, path.stat().st_size, str(path)))
    mmproj = files.mmproj.stat().st_size if files.mmproj else 0
    return _gguf_model(headers, mmproj, files.model.name)


def of_folder(folder: Path) -> Described:
    """A transformers model that is here. Raises what `weights.check` raises."""
    config = weights.check(folder)
    names = weights.indexed(folder) or {file.name for file in folder.glob("*.safetensors")}
    tensors = [tensor for name in sorted(names) for tensor in _local_tensors(folder / name)]
    return Described(_config_model(config, tensors, weights.title(folder)), str(folder), config)


def _remote_llama(block: LlamaCpp, on_progress: Progress) -> Described:
    there = hub.listing(block.hf_repo_id, block.hf_revision)
    headers = [_remote_gguf(there, name, on_progress) for name in gguf.part_names(block.hf_filename)]
    mmproj = there.file(block.mmproj_filename).size_bytes if block.mmproj_filename else 0
    return Described(_gguf_model(headers, mmproj, block.hf_filename), there.repository)


def _remote_gguf(there: hub.Listing, name: str, on_progress: Progress) -> GgufHeader:
    on_progress(f"reading the header of {name}")
    stream, size_bytes = _remote(there, name)
    try:
        return gguf.read(cast(BinaryIO, stream), size_bytes, name)
    except StartError:
        raise
    except Exception as error:  # the hub's client raises errors of many libraries
        raise explained(error, there.repository, there.repository, hub_cache.root()) from error


def _gguf_model(headers: Sequence[GgufHeader], mmproj_bytes: int, title: str) -> Model:
    first = headers[0]
    tensors = tuple(_gguf_tensor(tensor) for header in headers for tensor in header.tensors)
    vocabulary = first.lengths.get("tokenizer.ggml.tokens") or first.number("vocab_size") or 0
    shape = model_shape.from_gguf(first.metadata, vocabulary, title)
    return Model(Stored(tensors), shape, mmproj_bytes / MIB)


def _gguf_tensor(tensor: gguf.Tensor) -> StoredTensor:
    if tensor.size_bytes is None:
        raise ConfigError(f"tensor {tensor.name} is of type {tensor.type_id}, whose size is not known here.")
    numbers = 1
    for length in tensor.shape:
        numbers *= length
    return StoredTensor(tensor.name, str(tensor.type_id), numbers, tensor.size_bytes, len(tensor.shape) > 1)


def _local_tensors(path: Path) -> Iterable[StoredTensor]:
    with path.open("rb") as stream:
        return stored.safetensors(stream.read(_length(stream.read(BYTES_OF_LENGTH), path.name)), path.name)


def _remote_safetensors(there: hub.Listing, on_progress: Progress) -> Described:
    try:
        config = _remote_json(there, "config.json")
        names = weights.own_files(there.files)
        if weights.INDEX in names:
            shown = {str(name) for name in _remote_json(there, weights.INDEX)["weight_map"].values()}
            names = [name for name in names if name in shown]
        tensors: list[StoredTensor] = []
        for name in names:
            if name.endswith(".safetensors"):
                on_progress(f"reading the header of {name}")
                stream, _ = _remote(there, name)
                head = stream.read(_length(stream.read(BYTES_OF_LENGTH), name))
                tensors += stored.safetensors(head, name)
    except StartError:
        raise
    except Exception as error:  # the hub's client raises errors of many libraries
        raise explained(error, there.repository, there.repository, hub_cache.root()) from error
    return Described(_config_model(config, tensors, there.repository), there.repository, config)


def _remote_json(there: hub.Listing, name: str) -> dict[str, Any]:
    stream, size_bytes = _remote(there, name)
    try:
        found = json.loads(stream.read(size_bytes))
    except ValueError as error:
        raise WeightsDamaged(f"{name} of {there.repository} is not JSON ({error}).") from None
    if not isinstance(found, dict):
        raise WeightsDamaged(f"{name} of {there.repository} holds no JSON object.")
    return found


def _remote(there: hub.Listing, name: str) -> tuple[RemoteFile, int]:
    from huggingface_hub import hf_hub_url

    file = there.file(name)
    url = hf_hub_url(there.repository, file.name, revision=there.commit)
    return RemoteFile(url, file.size_bytes), file.size_bytes


def _config_model(config: Mapping[str, Any], tensors: Sequence[StoredTensor], title: str) -> Model:
    return Model(Stored(tuple(tensors)), model_shape.from_config(config, title))


def _length(raw: bytes, name: str) -> int:
    length = int.from_bytes(raw, "little")
    if not 2 <= length <= stored.MAX_HEADER_BYTES:
        raise WeightsDamaged(f"{name} is not a safetensors file; fetch it again.")
    return length
