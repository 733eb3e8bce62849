"""The decode step as CUDA graphs: one launch in place of some 1800 kernels.

A graph replays fixed kernels on fixed addresses, so everything that changes from step to step is
copied into static tensors first. One graph is captured for each batch size of 1, 2, 4, 8, 16 ...;
a smaller batch uses the next larger graph, its spare rows writing to and reading from a page that
belongs to nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sidecar.worker.attention import StepLayout, VarlenTables

if TYPE_CHECKING:  # model imports this module
    from sidecar.worker.model import Model


def batch_sizes(rows: int) -> list[int]:
    """1, 2, 4, 8, then multiples of 16 up to the first that holds `rows`."""
    sizes = [size for size in (1, 2, 4, 8) if size < rows]
    return [*sizes, *range(16, rows + 16, 16)] if rows > 8 else [*sizes, rows]


class DecodeGraphs:
    """Graphs for up to `rows` sequences at once. Made after the KV pool, before serving."""

    def __init__(self, model: Model, rows: int) -> None:
        plan, device = model.plan, model.device
        sizes = batch_sizes(rows)
        rows = sizes[-1]
        self._page_tokens = plan.page_tokens
        width = -(-plan.context // plan.page_tokens)
        self._ids = torch.zeros(1, rows, dtype=torch.long, device=device)
        self._positions = torch.zeros(1, rows, dtype=torch.long, device=device)
        self._slots = torch.zeros(rows, dtype=torch.long, device=device)
        self._kv_tokens = torch.ones(rows, dtype=torch.int32, device=device)
        self._block_table = torch.zeros(rows, width, dtype=torch.int32, device=device)
        self._cu_q = torch.arange(rows + 1, dtype=torch.int32, device=device)
        self._cu_k = torch.arange(rows + 1, dtype=torch.int32, device=device)
        self._spare_page = plan.pages  # the pool has one page more than the plan counts
        self._pool = torch.cuda.graph_pool_handle()  # one for all: only one graph runs at a time
        self._graphs = {size: self._capture(model, size) for size in reversed(sizes)}

    def replay(
        self, positions: Sequence[int], ids: Sequence[int], tables: Sequence[Sequence[int]]
    ) -> Tensor | None:
        """Logits of one token for each sequence; None where no graph is large enough."""
        count = len(ids)
        size = min((s for s in self._graphs if s >= count), default=None)
        if size is None:
            return None
        spare = size - count
        page = self._page_tokens
        slots = [t[p // page] * page + p % page for p, t in zip(positions, tables, strict=True)]
        lengths = [p + 1 for p in positions] + [1] * spare
        self._fill(self._ids[0], [*ids, *[0] * spare])
        self._fill(self._positions[0], [*positions, *[0] * spare])
        self._fill(self._slots, [*slots, *[self._spare_page * page] * spare])
        self._fill(self._kv_tokens, lengths)
        self._block_table[:size] = self._padded(tables, positions, size).to(self._block_table.device)
        graph, logits = self._graphs[size]
        graph.replay()
        return logits[:count].clone()

    def _padded(self, tables: Sequence[Sequence[int]], positions: Sequence[int], size: int) -> Tensor:
        table = torch.full((size, self._block_table.shape[1]), self._spare_page, dtype=torch.int32)
        for row, held, position in zip(table, tables, positions, strict=False):
            used = held[: position // self._page_tokens + 1]
            row[: len(used)] = torch.tensor(used, dtype=torch.int32)
        return table

    def _capture(self, model: Model, size: int) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        context = model.plan.context
        tables = VarlenTables(
            self._cu_q[: size + 1], self._cu_k[: size + 1], self._kv_tokens[:size],
            self._block_table[:size], max_q=1, max_k=context,
        )  # fmt: skip
        self._slots.fill_(self._spare_page * self._page_tokens)
        self._block_table.fill_(self._spare_page)
        step = StepLayout(model.pool, self._slots[:size], [], tables)
        ids, positions = self._ids[:, :size], self._positions[:, :size]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), torch.cuda.stream(stream):
            for _ in range(2):  # kernels that allocate or tune at first use must not do it in a graph
                model.forward(ids, positions, step, 0)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph, pool=self._pool):
            logits = model.forward(ids, positions, step, 0)
        return graph, logits

    @staticmethod
    def _fill(static: Tensor, numbers: Sequence[int]) -> None:
        static[: len(numbers)] = torch.tensor(numbers, dtype=static.dtype).to(static.device)
