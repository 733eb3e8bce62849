"""From a profile's sources to a model that is ready: find, check, choose, load, size.

Everything that can be known before the weights are read is checked before they are read.
"""

from __future__ import annotations

import inspect
import math
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GPTQConfig

from sidecar import budget, headers, room, toolcalls, weights
from sidecar.budget import MIB, Demand
from sidecar.errors import ConfigError, StartError, WeightsDamaged
from sidecar.model_shape import ModelShape
from sidecar.worker import attention, gptq, packed, precision
from sidecar.worker.architectures import check_architecture, usable_context
from sidecar.worker.attention import KvPool
from sidecar.worker.constraint import Grammars
from sidecar.worker.demand import MAX_CHOICES, PAGE_TOKENS, Wanted, serving_mib, worker_demand
from sidecar.worker.gptq_make import Report, Wish
from sidecar.worker.graphs import DecodeGraphs
from sidecar.worker.memory import release_memory, resident_bytes
from sidecar.worker.messages import WorkerConfig
from sidecar.worker.model import Model
from sidecar.worker.tokens import Tokens

# Rotary embeddings that depend on the position alone; the others change with the batch's length.
ROPE_TYPES = ("default", "linear", "llama3", "yarn")

_LOCAL: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}


def load(config: WorkerConfig, report: Report) -> Model:
    """The model, ready to step. Raises StartError; `report` hears how far it is."""
    device = device_named(config.device)
    limit_mib = config.vram_budget_mib if device.type == "cuda" else config.memory_budget_mib
    here_mib = resident_bytes() / MIB
    there_mib = limit_mib if device.type == "cuda" else min(limit_mib or math.inf, room.memory_mib())
    taken = _fitting(config, device, there_mib, here_mib, report)
    folder, chosen, varlen = taken.folder, taken.chosen, taken.varlen
    cap(device, limit_mib)
    # Marlin is compiled for the card at hand at its first use, which takes minutes.
    phase = "kernels" if chosen.gptq_kernel == "gptq_marlin" else "load"
    report(phase, None, f"{weights.title(folder)}: {chosen.weights}")
    attention.register()
    network = _network(folder, taken.network_config, chosen, device, varlen)
    if device.type == "cpu" and packed.available():
        packed.pack(network)
    tokens, eos = _tokens(folder, network), _eos(network)
    grammars = Grammars(tokens.backend, tokens.vocabulary, sorted(eos))
    measured = _measured(taken.demand, network, here_mib, config.slots, device)
    # What nobody set is not held to; what there is, is planned for all the same.
    plan = replace(budget.plan(measured, there_mib), budget_mib=limit_mib)
    model = Model(
        network=network,
        tokens=tokens,
        grammars=grammars,
        pool=_pool(network, taken.shape, plan, device),
        plan=plan,
        device=device,
        eos=eos,
        about=_about(folder, chosen, varlen, plan, tokens),
        varlen=varlen,
    )
    if varlen and config.cuda_graphs and chosen.graphs:
        report("warmup", None, "capturing CUDA graphs")
        model.graphs = DecodeGraphs(model, config.slots * MAX_CHOICES)
    return model


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """One that fits by its headers, how it will be loaded, and what that takes."""

    folder: Path
    network_config: Any
    shape: ModelShape
    chosen: precision.Precision
    varlen: bool
    demand: Demand


def _fitting(
    config: WorkerConfig, device: torch.device, limit_mib: float | None, here_mib: float, report: Report
) -> _Checkpoint:
    """Raises StartError where it is too much: before it is fetched, where the hub's headers say so."""
    varlen = _has_varlen(device)

    def wanted(found: headers.Described) -> tuple[precision.Precision, Demand]:
        chosen = precision.chosen(_abilities(device), found.config, config.quantization)
        context = _context(config, found)
        return chosen, worker_demand(
            found.model, _wanted(config, context, varlen), chosen, device.type, here_mib
        )

    if limit_mib is not None and (there := _described_on_hub(config, device, report)) is not None:
        budget.plan(wanted(there)[1], limit_mib)
    folder = _folder(config, device, report)
    found = headers.of_folder(folder)
    network_config = _checked_config(folder)
    # The same sum as `llm-sidecar plan`'s, before anything is read; once it is, the real sizes count.
    chosen, demand = wanted(found)
    # What the file does not say, transformers does.
    usable_context(folder.name, demand.context, network_config.max_position_embeddings, asked=True)
    budget.plan(demand, limit_mib)
    return _Checkpoint(folder, network_config, found.model.shape, chosen, varlen, demand)


def _context(config: WorkerConfig, found: headers.Described) -> int:
    made_for, title = found.model.shape.trained_context, Path(found.where).name
    return usable_context(title, config.context, made_for, asked=config.context_asked)


def _wanted(config: WorkerConfig, context: int, varlen: bool) -> Wanted:
    page_tokens = attention.VARLEN_PAGE_TOKENS if varlen else config.page_tokens or PAGE_TOKENS["cpu"]
    return Wanted(
        context, config.slots, config.batch_tokens, config.quantization, config.kv_tokens, page_tokens
    )


def _described_on_hub(config: WorkerConfig, device: torch.device, report: Report) -> headers.Described | None:
    """What is not here yet, before it is fetched; None where the fetch itself will say why it can not be."""
    if weights.find_here(config.sources) is not None:
        return None
    if config.quantization == "gptq" and gptq.kept_here(config.sources, _wish(config, device)) is not None:
        return None
    try:
        return headers.of_hub(config.sources, lambda text: report("download", 0.0, text))
    except StartError:
        return None


def _folder(config: WorkerConfig, device: torch.device, report: Report) -> Path:
    if config.quantization != "gptq":
        return weights.find(config.sources, lambda part, text: report("download", part, text))
    return gptq.ready(config.sources, _wish(config, device), report)


def _wish(config: WorkerConfig, device: torch.device) -> Wish:
    return Wish(
        device=str(device),
        threads=config.threads,
        vram_budget_mib=config.vram_budget_mib,
        allowed=config.auto_quantize,
    )


def _abilities(device: torch.device) -> precision.Device:
    if device.type != "cuda":
        return precision.Device(device.type)
    capability = torch.cuda.get_device_capability(device)
    return precision.Device("cuda", capability, shutil.which("nvcc") is not None)


def cap(device: torch.device, limit_mib: int | None) -> None:
    """On CUDA the allocator never takes more than the budget, from the first weight on."""
    if device.type == "cuda" and limit_mib is not None:
        total_mib = torch.cuda.get_device_properties(device).total_memory / budget.MIB
        cap = (limit_mib - budget.CUDA_CONTEXT_MIB) / total_mib
        torch.cuda.set_per_process_memory_fraction(min(max(cap, 0.0), 1.0), device)


def device_named(wanted: str) -> torch.device:
    """The device that DEVICE means here. Raises ConfigError for a card that torch does not see."""
    available = torch.cuda.is_available()
    if wanted.startswith("cuda") and not available:
        raise ConfigError(f"DEVICE is {wanted} but torch sees no CUDA device; accepted here: auto, cpu.")
    return torch.device(
        "cuda:0" if wanted in ("auto", "cuda") and available else wanted.replace("auto", "cpu")
    )


def _has_varlen(device: torch.device) -> bool:
    """torch's flash attention on pages: CUDA from capability 8.0, torch from 2.13 or so."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return "block_table" in inspect.signature(varlen_attn).parameters


def _checked_config(folder: Path) -> Any:
    """The model's configuration, if it is of a kind that this engine answers rightly."""
    config = AutoConfig.from_pretrained(folder, **_LOCAL)
    check_architecture(folder.name, config.to_dict())
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in ROPE_TYPES:
        raise ConfigError(f"{folder.name} uses {rope!r} rotary embeddings; known: {', '.join(ROPE_TYPES)}.")
    return config


def _network(
    folder: Path, config: Any, chosen: precision.Precision, device: torch.device, varlen: bool
) -> Any:
    name = attention.PAGED_VARLEN if varlen else attention.PAGED_SDPA
    # With loading info it returns a pair, which its annotation does not say.
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, chosen.dtype), device_map={"": device}, attn_implementation=name,
        use_safetensors=True, output_loading_info=True, **_LOCAL, **_quantization(config, chosen),
    )  # fmt: skip
    network, info = loaded
    lost = sorted([*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])])
    if lost:  # transformers fills these with random numbers
        raise WeightsDamaged(
            f"{folder.name} lacks {len(lost)} tensors that its config.json names, or has them in another "
            f"shape: {', '.join(lost[:3])}. Fetch the model again."
        )
    network.set_attn_implementation(name)
    return network.eval().requires_grad_(False)


def _quantization(config: Any, chosen: precision.Precision) -> dict[str, Any]:
    if chosen.gptq_kernel is not None:
        bits = config.quantization_config["bits"]
        return {"quantization_config": GPTQConfig(bits=bits, backend=chosen.gptq_kernel)}
    if chosen.weights == "bitsandbytes 8bit":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    if chosen.weights == "bitsandbytes 4bit":
        # nf4 and a half-precision product: the library's defaults are fp4 and float32.
        compute = getattr(torch, chosen.dtype)
        four = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_compute_dtype=compute, bnb_4bit_quant_type="nf4"
        )
        return {"quantization_config": four}
    return {}


def _tokens(folder: Path, network: Any) -> Tokens:
    vocabulary = network.get_input_embeddings().num_embeddings
    return Tokens(AutoTokenizer.from_pretrained(folder, **_LOCAL), vocabulary)


def _measured(demand: Demand, network: Any, before_mib: float, slots: int, device: torch.device) -> Demand:
    """The demand with what loading has really taken; the process is not less than it was before."""
    held = sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))
    held += sum(m.weight_bytes for m in network.modules() if isinstance(m, packed.PackedLinear))
    if device.type == "cuda":  # what a quantiser keeps beside its parameters is seen only here
        held = max(held, torch.cuda.memory_allocated(device))
        return replace(demand, weights_mib=held / MIB)
    release_memory(device)
    process_mib = max((resident_bytes() - held) / MIB, before_mib) + serving_mib(slots)
    return replace(demand, weights_mib=held / MIB, process_mib=process_mib)


def _pool(network: Any, shape: ModelShape, plan: budget.Plan, device: torch.device) -> KvPool:
    c = network.config
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    kv_heads = shape.kv[0].keys // head_dim
    return KvPool.allocate(
        shape.layers, plan.pages, plan.page_tokens, kv_heads, head_dim, network.dtype, device,
        taken=device.type == "cuda" or plan.budget_mib is not None,
    )  # fmt: skip


def _eos(network: Any) -> frozenset[int]:
    ids = network.generation_config.eos_token_id
    if ids is None:
        return frozenset()
    return frozenset([ids] if isinstance(ids, int) else ids)


def _about(
    folder: Path, chosen: precision.Precision, varlen: bool, plan: budget.Plan, tokens: Tokens
) -> tuple[tuple[str, str], ...]:
    kernel = "flash attention on pages" if varlen else "SDPA, sequence by sequence"
    return (
        ("model", weights.title(folder)),
        ("weights", f"{chosen.weights} ({chosen.weights_reason})"),
        ("dtype", f"{chosen.dtype} ({chosen.dtype_reason})"),
        ("attention", kernel),
        ("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores"),
        ("tools", toolcalls.OPEN if tokens.has_tools else "none: the chat template writes no calls"),
        ("plan", plan.sentence()),
    )
