"""Packed linear layers against torch's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sidecar.worker import packed

pytestmark = pytest.mark.skipif(not packed.available(), reason="this torch has no packed linear operator")


@pytest.mark.parametrize("rows", [1, 2, 7, 16, 33, 65, 200, 577])
@pytest.mark.parametrize("bias", [False, True])
def test_the_product_is_that_of_linear(rows: int, bias: bool) -> None:
    torch.manual_seed(rows)
    linear = nn.Linear(96, 160, bias=bias)
    x = torch.randn(1, rows, 96)
    with torch.inference_mode():
        assert torch.allclose(packed.PackedLinear(linear)(x), linear(x), atol=1e-5)


@given(st.integers(0, 5000))
def test_rows_come_in_blocks_of_few_sizes(rows: int) -> None:
    made = list(packed.blocks(rows))
    assert sum(count for count, _ in made) == rows
    assert all(count <= size < count + 8 and size in packed.SIZES for count, size in made)
    assert len(packed.SIZES) == 22


def test_no_rows_are_no_rows() -> None:
    with torch.inference_mode():
        assert packed.PackedLinear(nn.Linear(32, 64))(torch.empty(1, 0, 32)).shape == (1, 0, 64)


def test_only_float32_layers_of_their_own_are_packed() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(64, 32)
            self.inner = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32).bfloat16())
            self.head = nn.Linear(32, 64, bias=False)
            self.head.weight = self.embed.weight

    net = Net()
    assert packed.pack(net) == 1
    assert isinstance(net.inner[0], packed.PackedLinear)
    assert isinstance(net.head, nn.Linear)
    assert net.head.weight is net.embed.weight
