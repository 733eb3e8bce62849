"""Attention over paged keys and values, plugged into transformers' models as they are.

All tokens of a step are packed into one row of the model's input; a `StepLayout` says which of
them belong together and where their keys and values lie. transformers hands the layout through
to the attention function (`AttentionInterface`), which writes the new keys and values into the
pool and then attends sequence by sequence. Nothing is padded, so no request pays for another's
length, and on CPU the result of a sequence does not depend on its neighbours.

Two implementations: `paged_sdpa` runs everywhere, `paged_varlen` uses torch's own flash
attention on pages (CUDA, compute capability 8.0 and up, pages of a multiple of 256 tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

from sidecar.worker.schedule import Chunk

PAGED_SDPA = "sidecar_paged_sdpa"
PAGED_VARLEN = "sidecar_paged_varlen"
VARLEN_PAGE_TOKENS = 256


@dataclass(slots=True)
class KvPool:
    """Keys and values of all layers, each `[pages, page_tokens, kv_heads, head_dim]`."""

    keys: list[Tensor]
    values: list[Tensor]

    @classmethod
    def allocate(
        cls, layers: int, pages: int, page_tokens: int, kv_heads: int, head_dim: int,
        dtype: torch.dtype, device: torch.device, *, taken: bool,
    ) -> KvPool:  # fmt: skip
        """One page more than asked for, which belongs to nobody: padded rows of a graph use it.

        `taken`: all of it is there from here on; else, on a CPU, a page costs nothing until it is used.
        """
        shape = (pages + 1, page_tokens, kv_heads, head_dim)
        make = torch.zeros if taken else torch.empty
        both = [[make(shape, dtype=dtype, device=device) for _ in range(layers)] for _ in "kv"]
        return cls(*both)


@dataclass(slots=True)
class Span:
    """One sequence's part of a step: its queries, and the rows of its keys and values."""

    start: int
    count: int
    kv_tokens: int
    rows: slice | Tensor
    masks: dict[int | None, Tensor]

    def mask(self, window: int | None, device: torch.device) -> Tensor:
        """Which keys each query may see, `[count, kv_tokens]`; made once for all layers."""
        if window not in self.masks:
            q = torch.arange(self.kv_tokens - self.count, self.kv_tokens, device=device)[:, None]
            k = torch.arange(self.kv_tokens, device=device)[None, :]
            seen = k <= q if window is None else (k <= q) & (k > q - window)
            self.masks[window] = seen
        return self.masks[window]


@dataclass(slots=True)
class VarlenTables:
    """What the flash kernel wants to know; int32 on the device."""

    cu_q: Tensor
    cu_k: Tensor
    kv_tokens: Tensor
    block_table: Tensor
    max_q: int
    max_k: int


@dataclass(slots=True)
class StepLayout:
    """Where the packed tokens of one step belong. `slots` are their rows in the pool."""

    pool: KvPool
    slots: Tensor
    spans: list[Span]
    varlen: VarlenTables | None = None


def span_rows(pages: Sequence[int], page_tokens: int, tokens: int) -> slice | Tensor:
    """The pool rows of a sequence's first `tokens` tokens: a slice where the pages are neighbours.

    A slice is read in place, anything else is copied in every layer of every step.
    """
    held = pages[: -(-tokens // page_tokens)]
    first = held[0]
    if all(page == first + i for i, page in enumerate(held)):
        return slice(first * page_tokens, first * page_tokens + tokens)
    starts = torch.tensor(held)[:, None] * page_tokens
    return (starts + torch.arange(page_tokens)[None, :]).flatten()[:tokens]


def layout(
    pool: KvPool, chunks: Sequence[Chunk], pages: Sequence[Sequence[int]], page_tokens: int,
    device: torch.device,
) -> StepLayout:  # fmt: skip
    """The layout for `paged_sdpa`: `pages[i]` is the block table of `chunks[i]`."""
    spans, at = [], 0
    for chunk, table in zip(chunks, pages, strict=True):
        end = chunk.start + chunk.count
        rows = span_rows(table, page_tokens, end)
        spans.append(Span(at, chunk.count, end, rows if isinstance(rows, slice) else rows.to(device), {}))
        at += chunk.count
    return StepLayout(pool, _slots(chunks, pages, page_tokens).to(device), spans)


def _slots(chunks: Sequence[Chunk], pages: Sequence[Sequence[int]], page_tokens: int) -> Tensor:
    """The pool rows that the step's new keys and values are written to."""
    return torch.tensor(
        [
            held[t // page_tokens] * page_tokens + t % page_tokens
            for chunk, held in zip(chunks, pages, strict=True)
            for t in range(chunk.start, chunk.start + chunk.count)
        ]
    )


def varlen_layout(
    pool: KvPool, chunks: Sequence[Chunk], pages: Sequence[Sequence[int]], page_tokens: int,
    device: torch.device,
) -> StepLayout:  # fmt: skip
    """The layout for `paged_varlen`."""
    ends = [chunk.start + chunk.count for chunk in chunks]
    counts = [chunk.count for chunk in chunks]
    width = max(-(-end // page_tokens) for end in ends)
    table = torch.zeros(len(chunks), width, dtype=torch.int32)
    for row, held, end in zip(table, pages, ends, strict=True):
        used = held[: -(-end // page_tokens)]
        row[: len(used)] = torch.tensor(used, dtype=torch.int32)
    tables = VarlenTables(
        cu_q=_cumulative(counts).to(device),
        cu_k=_cumulative(ends).to(device),
        kv_tokens=torch.tensor(ends, dtype=torch.int32).to(device),
        block_table=table.to(device),
        max_q=max(counts),
        max_k=max(ends),
    )
    return StepLayout(pool, _slots(chunks, pages, page_tokens).to(device), [], tables)


def _cumulative(counts: Sequence[int]) -> Tensor:
    return functional.pad(torch.tensor(counts, dtype=torch.int32).cumsum(0, dtype=torch.int32), (1, 0))


def paged_sdpa(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    *,
    step: StepLayout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """`query` is [1, heads, tokens, dim], `key` and `value` [1, kv_heads, tokens, dim].

    Returns [1, tokens, heads, dim]. transformers' mask is not used: there is none to make.
    """
    keys, values = _write(module, step, key, value)
    q = query[0]
    out = torch.empty(q.shape[1], q.shape[0], q.shape[2], dtype=q.dtype, device=q.device)
    for span in step.spans:
        part = q[:, span.start : span.start + span.count]
        k, v = keys[span.rows].transpose(0, 1), values[span.rows].transpose(0, 1)
        attend = _attend_one if span.count == 1 else _attend_many
        result = attend(part, k, v, span, scaling, sliding_window)
        out[span.start : span.start + span.count] = result.transpose(0, 1)
    return out[None], None


def _attend_one(
    q: Tensor, k: Tensor, v: Tensor, span: Span, scaling: float | None, window: int | None
) -> Tensor:
    """A single query sees every key (of its window), so it needs no mask.

    The query heads that share a key head become the queries of that head: keys are not repeated.
    """
    if window is not None and span.kv_tokens > window:
        k, v = k[:, -window:], v[:, -window:]
    heads, _, dim = q.shape
    grouped = q.reshape(k.shape[0], heads // k.shape[0], dim)[None]
    out = functional.scaled_dot_product_attention(grouped, k[None], v[None], scale=scaling)
    return out.reshape(heads, 1, dim)


def _attend_many(
    q: Tensor, k: Tensor, v: Tensor, span: Span, scaling: float | None, window: int | None
) -> Tensor:
    whole = span.count == span.kv_tokens and (window is None or span.kv_tokens <= window)
    mask = None if whole else span.mask(window, q.device)
    return functional.scaled_dot_product_attention(
        q[None], k[None], v[None], attn_mask=mask, is_causal=whole, scale=scaling,
        enable_gqa=q.shape[0] != k.shape[0],
    )[0]  # fmt: skip


def paged_varlen(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    *,
    step: StepLayout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """The same promise as `paged_sdpa`, by torch's flash attention; takes part in CUDA graphs.

    `num_splits=1` makes a sequence's result independent of its neighbours.
    """
    from torch.nn.attention.varlen import varlen_attn  # older torch has no paged form of it

    _write(module, step, key, value)
    tables, layer = step.varlen, _layer(module)
    assert tables is not None, "paged_varlen needs a layout made by varlen_layout"
    # A single query sees every key that there is. Said as "not causal", flash attention packs the
    # query heads that share a key and reads the keys once (mha_varlen_fwd, seqlenq_ngroups_swapped).
    right = -1 if tables.max_q == 1 and sliding_window is None else 0
    window = (-1 if sliding_window is None else sliding_window - 1, right)
    out = varlen_attn(
        query[0].transpose(0, 1), step.pool.keys[layer], step.pool.values[layer],
        tables.cu_q, tables.cu_k, tables.max_q, tables.max_k,
        scale=scaling, window_size=window, enable_gqa=True,
        seqused_k=tables.kv_tokens, block_table=tables.block_table, num_splits=1,
    )  # fmt: skip
    assert isinstance(out, Tensor)  # a pair only where its log-sums are asked for
    return out[None], None


def _write(module: torch.nn.Module, step: StepLayout, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Put the new keys and values into the pool; the layer's pools as [rows, kv_heads, dim]."""
    layer = _layer(module)
    keys, values = step.pool.keys[layer].flatten(0, 1), step.pool.values[layer].flatten(0, 1)
    keys.index_copy_(0, step.slots, key[0].transpose(0, 1))
    values.index_copy_(0, step.slots, value[0].transpose(0, 1))
    return keys, values


def _layer(module: torch.nn.Module) -> int:
    return int(module.layer_idx)  # type: ignore[arg-type]  # a plain number in every attention module


def register() -> None:
    """Make both known to transformers; safe to call twice."""
    AttentionInterface.register(PAGED_SDPA, paged_sdpa)
    AttentionInterface.register(PAGED_VARLEN, paged_varlen)
