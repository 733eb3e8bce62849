"""What a profile is: the blocks of `config/llm_profiles.yaml`, checked, and what follows from them.

Knows nothing of files, engines or the environment. What can not be used is a ValueError whose text
is meant for people; `sidecar.registry` makes it one line with the profile's name.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

# A profile made on the spot, for a model of one's own: nobody has said what it can do.
OWN = "own"
OWN_CONTEXT = 4096
EMBEDDED = "embedded"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAMES = "1 to 64 letters, digits, `.`, `_` or `-`, a letter or a digit first"
_SHA256 = r"^[0-9a-f]{64}$"
_HOST_NAME = r"^[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?$"
_GGUF_NAME = r"^[A-Za-z0-9][\w .+-]*(/[A-Za-z0-9][\w .+-]*)*\.gguf$"
_HUB_ID = r"^[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}$"
# What each pattern is to who reads that a text is none of it.
IN_WORDS = {
    _SHA256: "a SHA-256 in 64 hexadecimal digits, small letters",
    _HOST_NAME: "the name of a host, with a port or without, as images.example.com or localhost:8000",
    _GGUF_NAME: "the name of a *.gguf file, or its path below the root or the repository, as Q4/m.gguf",
    _HUB_ID: "a repository of the hub, as owner/name",
}

Quantization = Literal["auto", "none", "8bit", "4bit", "gptq"]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "iq4_nl", "q4_1", "q4_0"]
# What a number may be that llama-server and torch hold in 32 bits.
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Text = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern=_SHA256)]
HostName = Annotated[str, Field(pattern=_HOST_NAME)]
# Below the root or the repository that it is looked for in, never beside it.
GgufName = Annotated[str, Field(pattern=_GGUF_NAME)]
HubId = Annotated[str, Field(pattern=_HUB_ID)]


def _switch(value: object) -> object:
    """YAML reads a bare `on` and `off` as a truth value."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


Switch = Annotated[
    Literal["on", "off", "auto"],
    BeforeValidator(_switch),
    WithJsonSchema({"enum": ["on", "off", "auto", True, False]}),
]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class Gpu(_Block):
    """How much of which cards. `max_model_len` is the context, prompt and answer together."""

    num_gpus: Annotated[int, Field(ge=0, le=64)] | None = None
    tensor_parallel_size: Annotated[int, Field(ge=1, le=64)] | None = None
    device_ids: list[Annotated[int, Field(ge=0, le=1023)]] = []
    max_model_len: Count | None = None
    max_batch_tokens: Count | None = None
    max_concurrent_requests: Count | None = None
    gpu_memory_fraction: Annotated[float, Field(gt=0, le=1)] | None = None

    @property
    def cards(self) -> int:
        """How many cards it is spread over; 0 is the CPU."""
        if self.device_ids:
            return len(self.device_ids)
        return 1 if self.num_gpus is None else self.num_gpus

    @model_validator(mode="after")
    def _counts_agree(self) -> Gpu:
        if len(set(self.device_ids)) != len(self.device_ids):
            raise ValueError(f"device_ids {self.device_ids} name a card twice")
        if self.device_ids and self.num_gpus not in (None, len(self.device_ids)):
            raise ValueError(f"num_gpus {self.num_gpus} and device_ids {self.device_ids} disagree")
        return self


class LlamaCpp(_Block):
    """What llama-server is started with. What is not set (None, or empty) is left to llama-server.

    The file is `model_path` (a path, or `embedded`), else `hf_filename`: below `model_root`, or in the
    hub's cache where there is no root; fetched from `hf_repo_id` when it is not there. `ctx_size` is
    the context of one request. `n_gpu_layers` -1 is all of them, as is none given. `host` and `port`
    are accepted, since registries have them, and change nothing.
    """

    model_root: str = ""
    hf_repo_id: HubId = ""
    hf_filename: GgufName = ""
    hf_revision: Text = ""
    sha256: Sha256 = ""
    model_path: Text = ""
    mmproj_filename: GgufName = ""
    mmproj_sha256: Sha256 = ""
    host: str = ""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    ctx_size: Count | None = None
    n_gpu_layers: Annotated[int, Field(ge=-1, le=10_000)] | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    threads_batch: Annotated[int, Field(ge=1, le=1024)] | None = None
    parallel: Annotated[int, Field(ge=1, le=1024)] | None = None
    batch_size: Count | None = None
    ubatch_size: Count | None = None
    flash_attn: Switch | None = None
    cache_type_k: CacheType | None = None
    cache_type_v: CacheType | None = None
    tensor_split: list[Annotated[float, Field(ge=0)]] = []
    split_mode: Literal["none", "layer", "row", "tensor"] | None = None
    main_gpu: Annotated[int, Field(ge=0, le=1023)] | None = None
    mlock: bool | None = None
    mmap: bool | None = None
    cpu_moe: bool = False
    n_cpu_moe: Annotated[int, Field(ge=0, le=10_000)] | None = None
    pooling: Literal["none", "mean", "cls", "last", "rank"] | None = None
    chat_template_file: Text | None = None
    image_hosts: list[HostName] = []
    default_max_tokens: Count = 1024
    ready_deadline_s: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    extra_args: list[Text] = []

    @model_validator(mode="after")
    def _names_a_file_that_can_be_served(self) -> LlamaCpp:
        if not (self.model_path or self.hf_filename):
            raise ValueError(
                "no file is named; set hf_filename (with hf_repo_id or model_root) or model_path"
            )
        if not self.model_path and not (self.hf_repo_id or self.model_root):
            raise ValueError("hf_filename needs hf_repo_id (where from) or model_root (where it is)")
        if self.cpu_moe and self.n_cpu_moe is not None:
            raise ValueError("cpu_moe and n_cpu_moe exclude each other; set one of them")
        if self.flash_attn == "off" and self.cache_type_v not in (None, "f32", "f16", "bf16"):
            raise ValueError(f"cache_type_v {self.cache_type_v} needs flash attention; flash_attn is off")
        return self


class Transformers(_Block):
    """Where the weights come from, in order, and how they are held.

    A source is `embedded`, a local folder, or a hub id with an optional `@revision`.
    `quantization: gptq` loads a GPTQ checkpoint as it is, and quantises a 16-bit model once.
    `kv_tokens` sizes the KV pool; without it the pool takes what the budget leaves.
    """

    sources: Annotated[list[Text], Field(min_length=1)]
    quantization: Quantization = "auto"
    default_max_tokens: Count = 1024
    kv_tokens: Count | None = None
    page_tokens: Count | None = None


class Profile(_Block):
    """One model that can be served. `model_id` is its label in the API.

    `vram_mib` is what it needs of all its cards together; None where nobody has said.
    """

    name: str
    display_name: str = ""
    description: str = ""
    vram_mib: Annotated[int, Field(ge=1)] | None = None
    task_type: Literal["chat", "completion", "embedding"] = "chat"
    backend: Literal["transformers", "llamacpp"]
    model_id: Annotated[str, Field(min_length=1, max_length=200)]
    supports_tools: bool = False
    supports_embeddings: bool = False
    supports_vision: bool = False
    gpu: Gpu = Gpu()
    llamacpp: LlamaCpp | None = None
    transformers: Transformers | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Profile:
        if getattr(self, self.backend) is None:
            raise ValueError(f"backend `{self.backend}` needs a `{self.backend}:` block")
        if self.task_type == "embedding" and not self.supports_embeddings:
            raise ValueError("task_type `embedding` needs supports_embeddings: true")
        if self.backend == "llamacpp":
            _check_vision(self)
            _check_cards(self)
        else:
            _check_text_alone(self)
        return self

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together, of one request."""
        given = [self.gpu.max_model_len]
        if self.backend == "llamacpp" and self.llamacpp:
            given.append(self.llamacpp.ctx_size)
        return min((tokens for tokens in given if tokens is not None), default=OWN_CONTEXT)

    @property
    def slots(self) -> int:
        """Requests at the same time.

        One for llamacpp where nothing is said: there each slot has its whole context set aside.
        """
        given = [self.gpu.max_concurrent_requests]
        if self.backend == "llamacpp" and self.llamacpp:
            given.append(self.llamacpp.parallel)
        usual = 8 if self.backend == "transformers" else 1
        return min((slots for slots in given if slots is not None), default=usual)

    @property
    def batch_tokens(self) -> int:
        """Tokens of prompts in one step of the transformers engine."""
        return self.gpu.max_batch_tokens or 512

    @property
    def spread(self) -> str:
        """How the model lies on several cards: by layers, where nothing else is said."""
        if self.llamacpp and self.llamacpp.split_mode is not None:
            return self.llamacpp.split_mode
        return "none" if self.gpu.tensor_parallel_size == 1 else "layer"

    @property
    def default_max_tokens(self) -> int:
        """The length of an answer for which the request asks nothing."""
        block = self.llamacpp if self.backend == "llamacpp" else self.transformers
        assert block is not None
        return block.default_max_tokens


def clamped(profile: Profile, made_for: int | None) -> Profile:
    """The profile with no more context than its model was made for, unless its positions are stretched."""
    if made_for is None or made_for >= profile.context or _is_stretched(profile):
        return profile
    return profile.model_copy(update={"gpu": profile.gpu.model_copy(update={"max_model_len": made_for})})


def _is_stretched(profile: Profile) -> bool:
    """Whether `extra_args` give it other positions: then llama-server alone knows how far it reaches."""
    words = profile.llamacpp.extra_args if profile.llamacpp else []
    return any(word.startswith(("--rope-", "--yarn-")) for word in words)


def _check_vision(profile: Profile) -> None:
    assert profile.llamacpp is not None
    if profile.supports_vision and not profile.llamacpp.mmproj_filename:
        raise ValueError("supports_vision needs llamacpp.mmproj_filename, the file that reads images")
    if profile.llamacpp.mmproj_filename and not profile.supports_vision:
        raise ValueError("llamacpp.mmproj_filename needs supports_vision: true")


def _check_text_alone(profile: Profile) -> None:
    for key in ("supports_vision", "supports_embeddings"):
        if getattr(profile, key):
            raise ValueError(
                f"{key} needs backend `llamacpp`; the transformers engine reads and writes text alone"
            )


def _check_cards(profile: Profile) -> None:
    assert profile.llamacpp is not None
    gpu, shares = profile.gpu, profile.llamacpp.tensor_split
    if gpu.tensor_parallel_size not in (None, 1, gpu.cards):
        raise ValueError(
            f"gpu.tensor_parallel_size {gpu.tensor_parallel_size} and {gpu.cards} card(s) disagree; "
            "llama-server spreads a model over all cards that it sees"
        )
    if shares and len(shares) != gpu.cards:
        raise ValueError(f"llamacpp.tensor_split has {len(shares)} shares for {gpu.cards} card(s)")
