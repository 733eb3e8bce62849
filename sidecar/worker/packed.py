"""Plain float32 linear layers on CPU, with their weights packed once for oneDNN.

torch's own linear has MKL pack the weights again at every call, which costs more than the product
itself while few rows are multiplied: with 2 to 8 rows the packed form takes 0.5 to 0.8 of the time
(AVX2, one thread, 768 x 2048 and 768 x 32768), with 1 and with 32 about the same. The operators are
those that torch.compile emits for frozen models; a torch without them keeps its own layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

# oneDNN chooses its block format by the number of rows that it is told to expect. Of 16, 64 and 512, 64 is
# level or best from 1 to 64 rows and within a tenth of the best at 512 (AVX2, two threads).
_EXPECTED_ROWS = 64
_MOST_ROWS = 512
SIZES = (*range(1, 8), *range(8, 64, 8), *range(64, _MOST_ROWS + 1, 64))


def blocks(rows: int) -> Iterator[tuple[int, int]]:
    """Rows in blocks of few different sizes: (how many, of what size with rows of nothing behind them).

    oneDNN writes a kernel for every number of rows that it meets, and keeps it: 3 MiB for each in a model
    with five kinds of layers, half a GiB after a while (measured). These are the 22 of SIZES.
    """
    while rows:
        count = next((size for size in (_MOST_ROWS, rows // 64 * 64) if 0 < size <= rows), rows)
        yield count, next(size for size in SIZES if size >= count)
        rows -= count


class PackedLinear(nn.Module):
    """`nn.Linear` for inference: the same shape in and out, weights in oneDNN's own layout."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _EXPECTED_ROWS)
        self.weight_bytes = linear.weight.numel() * linear.weight.element_size()

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in_features]` to `[..., out_features]`."""
        rows = x.reshape(-1, self.in_features)
        out = rows.new_empty(rows.shape[0], self.out_features)
        at = 0
        for count, padded in blocks(rows.shape[0]):
            block = rows[at : at + count]
            if padded > count:
                block = nn.functional.pad(block, (0, 0, 0, padded - count))
            done = torch.ops.mkldnn._linear_pointwise(block, self._packed, self.bias, "none", [], "")
            out[at : at + count] = done[:count]
            at += count
        return out.view(*x.shape[:-1], self.out_features)


def available() -> bool:
    """Whether this torch has both operators and an oneDNN to run them."""
    mkldnn: Any = torch.ops.mkldnn
    return torch.backends.mkldnn.is_available() and all(
        hasattr(mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )


def pack(network: nn.Module) -> int:
    """Replace the float32 linear layers in place, one at a time; how many there were.

    A layer whose weight another module uses too (tied embeddings) is left alone: its packed form
    would be a second copy.
    """
    owners: dict[int, int] = {}
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    count = 0
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if _packable(child) and owners[id(child.weight)] == 1:
                setattr(parent, name, PackedLinear(child))
                count += 1
    if count:
        _let_go_of_the_file(network)
    return count


def write_kernels(network: nn.Module, most_rows: int) -> None:
    """Have oneDNN write all the kernels that steps of so many rows use.

    One that can not be written for lack of memory is never written again: its size fails from then on.
    """
    layers = {(m.in_features, m.out_features): m for m in network.modules() if isinstance(m, PackedLinear)}
    sizes = {size for _, size in chain(*(blocks(rows) for rows in range(1, most_rows + 1)))}
    with torch.inference_mode():
        for layer in layers.values():
            for size in sizes:
                layer(torch.zeros(size, layer.in_features))


def _packable(module: nn.Module) -> TypeGuard[nn.Linear]:
    return type(module) is nn.Linear and module.weight.dtype == torch.float32


def _let_go_of_the_file(network: nn.Module) -> None:
    """What was not packed is copied: as views of the mapped file it would keep all of it resident."""
    for parameter in network.parameters():
        parameter.data = parameter.data.clone()
