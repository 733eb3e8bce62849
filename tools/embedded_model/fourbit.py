"""The 4-bit grid on which GPTQ will put the weights, simulated in training.

The forward and backward passes see rounded weights, the update moves the exact ones
(straight-through): the model learns to be right after rounding. The grid is gptqmodel's for
`sym=True`: 16 steps from -8 to 7, one scale for each group of inputs.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

BITS = 4
GROUP = 32


def quantised_layers(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    """The linear layers that GPTQ will quantise: all but the output head."""
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    return [(name, layer) for name, layer in layers if not name.endswith("lm_head")]


def rounded(weight: Tensor) -> Tensor:
    """`weight` moved to the nearest point of its grid."""
    groups = weight.reshape(weight.size(0), -1, GROUP)
    scale = groups.abs().amax(dim=2, keepdim=True).clamp(min=1e-8) * 2 / (2**BITS - 1)
    steps = (groups / scale).round().clamp(-(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1)
    moved: Tensor = (steps * scale).reshape(weight.shape)
    return moved


@contextmanager
def rounded_weights(model: nn.Module, *, active: bool) -> Iterator[None]:
    """While this lasts, the linear layers compute with rounded weights (if `active`)."""
    exact: list[tuple[nn.Linear, Tensor]] = []
    if active:
        exact = [(layer, layer.weight.data) for _, layer in quantised_layers(model)]
        with torch.no_grad():
            for layer, weight in exact:
                layer.weight.data = rounded(weight)
    try:
        yield
    finally:
        for layer, weight in exact:
            layer.weight.data = weight
