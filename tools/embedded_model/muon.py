"""Muon (Keller Jordan, 2024) in fp32: momentum whose matrix is made orthogonal before the step.

torch.optim.Muon does this in bfloat16, which processors without bfloat16 instructions run many
times slower. Matrices of one shape are handled as one stack.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonal(stack: Tensor, rounds: int = 5) -> Tensor:
    """Every matrix of the stack with its singular values moved near to 1 (Newton-Schulz)."""
    a, b, c = COEFFICIENTS
    tall = stack.size(1) > stack.size(2)
    x = stack.mT if tall else stack
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    flat: Tensor = x.mT if tall else x
    return flat


class Muon(torch.optim.Optimizer):
    """The optimiser for the matrices inside the layers; embeddings and norms want AdamW."""

    def __init__(
        self, matrices: Iterable[Tensor], lr: float, momentum: float = 0.95, decay: float = 0.01
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # never a float
        """One update of every matrix that has a gradient."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                shapes[matrix.shape].append(matrix)
            for matrices in shapes.values():
                self._update(matrices, group["lr"], group["momentum"], group["decay"])

    def _update(self, matrices: list[Tensor], lr: float, momentum: float, decay: float) -> None:
        moved = torch.stack([self._with_momentum(matrix, momentum) for matrix in matrices])
        scale = max(1.0, moved.size(1) / moved.size(2)) ** 0.5
        for matrix, change in zip(matrices, orthogonal(moved), strict=True):
            matrix.mul_(1 - lr * decay).add_(change, alpha=-lr * scale)

    def _with_momentum(self, matrix: Tensor, momentum: float) -> Tensor:
        if matrix.grad is None:
            raise ValueError("a matrix has no gradient")
        state = self.state[matrix]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(matrix)
        buffer: Tensor = state["momentum"]
        buffer.lerp_(matrix.grad, 1 - momentum)
        return matrix.grad.lerp(buffer, momentum)
