"""A loaded model: its weights, its tokenizer, its KV memory, and one pass over packed tokens.

The network itself is transformers' (and gptqmodel's or bitsandbytes' layers in it); what is ours is
the memory around it and the shape in which tokens enter. `sidecar.worker.load` makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from sidecar import budget
from sidecar.worker import attention, packed
from sidecar.worker.attention import KvPool
from sidecar.worker.constraint import Grammars
from sidecar.worker.graphs import DecodeGraphs
from sidecar.worker.schedule import Chunk
from sidecar.worker.tokens import Tokens


@dataclass(slots=True)
class Model:
    """Everything that a step needs. Made by `load`."""

    network: Any
    tokens: Tokens
    grammars: Grammars
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

    def warm_up(self, batch_tokens: int) -> None:
        """The largest prefill there is and one decode step, over pages that nobody holds yet.

        Kernels that tune or allocate at their first use do it here, not in somebody's request.
        """
        count = min(batch_tokens, self.plan.context, self.plan.kv_tokens)
        pages = list(range(-(-count // self.plan.page_tokens)))
        self.step([Chunk(0, 0, count, True)], [0] * count, [pages])
        self.step([Chunk(0, count - 1, 1, True)], [0], [pages])
        if self.device.type == "cpu" and self.plan.budget_mib is not None:
            packed.write_kernels(self.network, batch_tokens)  # before memory can run out

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
        ends = [e - 1 for e, c in zip(accumulate(c.count for c in chunks), chunks, strict=True) if c.last]
        wanted = 0 if len(ends) == len(ids) else torch.tensor(ends, dtype=torch.long, device=self.device)
        return self._row(ids), self._row(positions), step, wanted

    def _row(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor([numbers], device=self.device)
