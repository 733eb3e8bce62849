"""A loaded model: its weights, its tokenizer, its KV memory, and one pass over packed tokens.

The model itself is transformers' (and gptqmodel's or bitsandbytes' layers in it); what is ours is
the memory around it and the shape in which tokens enter.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GPTQConfig

from sidecar import budget, weights
from sidecar.errors import ConfigError
from sidecar.worker import attention, precision
from sidecar.worker.attention import KvPool
from sidecar.worker.graphs import DecodeGraphs
from sidecar.worker.messages import WorkerConfig
from sidecar.worker.schedule import Chunk
from sidecar.worker.tokens import Tokens

# Each is held to `generate`'s own tokens by a test; any other is refused, never answered wrongly.
TESTED = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
# Rotary embeddings that depend on the position alone; the others change with the batch's length.
ROPE_TYPES = ("default", "linear", "llama3", "yarn")
CPU_PAGE_TOKENS = 16

Report = Callable[[str, float | None, str], None]


@dataclass(slots=True)
class Model:
    """Everything that a step needs. Made by `load`."""

    network: Any
    tokens: Tokens
    pool: KvPool
    plan: budget.Plan
    device: torch.device
    eos: frozenset[int]
    about: tuple[tuple[str, str], ...]
    varlen: bool = False
    graphs: DecodeGraphs | None = None

    @torch.inference_mode()
    def step(self, chunks: Sequence[Chunk], ids: Sequence[int], tables: Sequence[Sequence[int]]) -> Tensor:
        """Logits `[chunks with last set, vocabulary]`, float32, on the model's device.

        `ids` are the chunks' tokens one after the other; `tables[i]` are the pages of chunk i.
        Keys and values of all tokens are in the pool afterwards.
        """
        if self.graphs is not None and all(chunk.count == 1 for chunk in chunks):
            logits = self.graphs.replay([c.start for c in chunks], ids, tables)
            if logits is not None:
                return logits
        return self.forward(*self._packed(chunks, ids, tables))

    def forward(
        self, ids: Tensor, positions: Tensor, step: attention.StepLayout, wanted: Tensor | int
    ) -> Tensor:
        """One pass of the network over packed tokens; `wanted` picks the rows with logits."""
        out = self.network(
            input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=wanted, step=step
        )
        return out.logits[0].float()  # type: ignore[no-any-return]  # the network is untyped

    def warm_up(self) -> None:
        """One step of a full batch's length on the page that belongs to nobody.

        Kernels that tune or allocate at their first use do it here, not in somebody's request.
        """
        page, spare = self.plan.page_tokens, self.plan.pages
        count = min(page, self.plan.context)
        self.step([Chunk(0, 0, count, True)], [0] * count, [[spare]])
        self.step([Chunk(0, count - 1, 1, True)], [0], [[spare]])

    def reset(self) -> None:
        """Forget what the pool holds; what a failed step wrote must not be read."""
        for tensor in (*self.pool.keys, *self.pool.values):
            tensor.zero_()

    def _packed(
        self, chunks: Sequence[Chunk], ids: Sequence[int], tables: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor, attention.StepLayout, Tensor | int]:
        size = self.plan.page_tokens
        if self.varlen:
            step = attention.varlen_layout(self.pool, chunks, tables, size, self.device)
        else:
            step = attention.layout(self.pool, chunks, tables, size, self.device)
        positions = [t for c in chunks for t in range(c.start, c.start + c.count)]
        ends = [sum(c.count for c in chunks[: i + 1]) - 1 for i, c in enumerate(chunks) if c.last]
        wanted = 0 if len(ends) == len(ids) else torch.tensor(ends, dtype=torch.long, device=self.device)
        return self._row(ids), self._row(positions), step, wanted

    def _row(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor([numbers], device=self.device)


def load(config: WorkerConfig, report: Report) -> Model:
    """Find, check, load and size the model. Raises StartError; `report` hears how far it is."""
    folder = weights.find(config.sources, lambda part, text: report("download", part, text))
    stored = weights.check(folder)
    report("load", None, str(folder.name))
    device = _device(config.device)
    chosen = precision.choose(
        precision.Device(device.type, _capability(device)),
        (stored.get("quantization_config") or {}).get("quant_method"),
        str(stored.get("dtype") or stored.get("torch_dtype") or "float32"),
        config.quantization,
    )
    network_config = _checked_config(folder, config.context)
    budget.check_weights(weights.stored_mib(folder), chosen.kept, _budget_mib(config, device))
    attention.register()
    varlen = _has_varlen(device)
    name = attention.PAGED_VARLEN if varlen else attention.PAGED_SDPA
    network = _network(folder, network_config, chosen, device, name)
    page_tokens = attention.VARLEN_PAGE_TOKENS if varlen else config.page_tokens or CPU_PAGE_TOKENS
    plan = _plan(config, network, device, page_tokens)
    if device.type == "cuda" and plan.budget_mib is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        cap = min((plan.budget_mib - plan.context_mib) * budget.MIB / total, 1.0)
        torch.cuda.set_per_process_memory_fraction(cap, device)
    pool = _pool(network, plan, device)
    vocabulary = network.get_input_embeddings().num_embeddings
    tokens = Tokens(AutoTokenizer.from_pretrained(folder, **_LOCAL), vocabulary)
    about = _about(folder, chosen, varlen, plan)
    model = Model(network, tokens, pool, plan, device, _eos(network), about, varlen)
    if varlen and config.cuda_graphs:
        model.graphs = DecodeGraphs(model, config.slots)
    return model


_LOCAL: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}


def _device(wanted: str) -> torch.device:
    available = torch.cuda.is_available()
    if wanted.startswith("cuda") and not available:
        raise ConfigError(f"DEVICE is {wanted} but torch sees no CUDA device; accepted here: auto, cpu.")
    return torch.device(
        "cuda:0" if wanted in ("auto", "cuda") and available else wanted.replace("auto", "cpu")
    )


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)


def _has_varlen(device: torch.device) -> bool:
    """torch's flash attention on pages: CUDA from capability 8.0, torch from 2.13 or so."""
    if device.type != "cuda" or _capability(device) < (8, 0):
        return False
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    import inspect

    return "block_table" in inspect.signature(varlen_attn).parameters


def _checked_config(folder: Path, context: int) -> Any:
    """The model's configuration, if it is of a kind that this engine answers rightly."""
    config = AutoConfig.from_pretrained(folder, **_LOCAL)
    architecture = (config.architectures or ["none"])[0]
    if architecture not in TESTED:
        raise ConfigError(
            f"{folder.name} is a {architecture}; this engine is tested with {', '.join(TESTED)}. "
            "Other architectures need the llama.cpp engine."
        )
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in ROPE_TYPES:
        raise ConfigError(f"{folder.name} uses {rope!r} rotary embeddings; known: {', '.join(ROPE_TYPES)}.")
    if context > config.max_position_embeddings:
        raise ConfigError(
            f"CONTEXT_SIZE is {context}, but {folder.name} was made for at most "
            f"{config.max_position_embeddings} tokens."
        )
    return config


def _network(
    folder: Path, config: Any, chosen: precision.Precision, device: torch.device, attention_name: str
) -> Any:
    extra: dict[str, Any] = {}
    if chosen.gptq_kernel is not None:
        extra["quantization_config"] = GPTQConfig(
            bits=config.quantization_config["bits"], backend=chosen.gptq_kernel
        )
    elif chosen.weights.startswith("bitsandbytes"):
        eight = chosen.weights.endswith("8bit")
        extra["quantization_config"] = BitsAndBytesConfig(load_in_8bit=eight, load_in_4bit=not eight)
    network = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, chosen.dtype), device_map={"": device},
        attn_implementation=attention_name, use_safetensors=True, **_LOCAL, **extra,
    )  # fmt: skip
    network.set_attn_implementation(attention_name)
    return network.eval().requires_grad_(False)


def _plan(config: WorkerConfig, network: Any, device: torch.device, page_tokens: int) -> budget.Plan:
    c = network.config
    held = sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))
    rows = max(config.slots, 1)
    return budget.plan(
        budget_mib=_budget_mib(config, device),
        weights_mib=held / budget.MIB,
        workspace_mib=budget.workspace_mib(
            config.batch_tokens, c.hidden_size, c.intermediate_size, rows * c.vocab_size
        ),
        on_cuda=device.type == "cuda",
        shape=_kv_shape(network),
        page_tokens=page_tokens,
        context=config.context,
        wanted_tokens=config.kv_tokens or config.slots * config.context,
    )


def _budget_mib(config: WorkerConfig, device: torch.device) -> int | None:
    return config.vram_budget_mib if device.type == "cuda" else config.memory_budget_mib


def _kv_shape(network: Any) -> budget.KvShape:
    c = network.config
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    return budget.KvShape(c.num_hidden_layers, c.num_key_value_heads, head_dim, network.dtype.itemsize)


def _pool(network: Any, plan: budget.Plan, device: torch.device) -> KvPool:
    shape = _kv_shape(network)
    return KvPool.allocate(
        shape.layers, plan.pages, plan.page_tokens, shape.kv_heads, shape.head_dim, network.dtype, device
    )


def _eos(network: Any) -> frozenset[int]:
    ids = network.generation_config.eos_token_id
    if ids is None:
        return frozenset()
    return frozenset([ids] if isinstance(ids, int) else ids)


def _about(
    folder: Path, chosen: precision.Precision, varlen: bool, plan: budget.Plan
) -> tuple[tuple[str, str], ...]:
    kernel = "flash attention on pages" if varlen else "SDPA, sequence by sequence"
    return (
        ("model", folder.name),
        ("weights", f"{chosen.weights} ({chosen.weights_reason})"),
        ("dtype", f"{chosen.dtype} ({chosen.dtype_reason})"),
        ("attention", kernel),
        ("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores"),
        ("plan", plan.sentence()),
    )
