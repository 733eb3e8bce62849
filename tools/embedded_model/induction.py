"""A start for the weights that already copies a little: an induction circuit in two heads.

A head of layer 0 looks at the token before; a head of layer 1 looks for the place where the
current token stood before and proposes what followed it (Olsson et al., 2022). From random
weights a model this small needs most of its training time to find that; from here it needs
minutes, and the training is free to change every weight.
"""

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

CONSTANT = 0.2  # what every embedding holds at coordinate 0: lets a head see positions alone
FAST_PAIRS = 4  # the rotary pairs that turn fast enough to tell a position from the next
SLOW_FROM = 6  # the rotary pairs from here on hardly turn: they compare contents
SHARPNESS = 60.0


def orthonormal(rows: int, columns: int) -> Tensor:
    """A random matrix with orthonormal rows that does not see coordinate 0."""
    matrix = torch.zeros(rows, columns)
    matrix[:, 1:] = torch.linalg.qr(torch.randn(columns - 1, rows)).Q.T
    return matrix


def _look_one_back(model: LlamaForCausalLM, angles: Tensor, written: Tensor, seen: Tensor) -> None:
    attention = model.model.layers[0].self_attn
    half = len(angles)
    per_side = (SHARPNESS**0.5) * 0.04 / CONSTANT
    for weight in (attention.q_proj.weight, attention.k_proj.weight):
        weight[: 2 * half] = 0
    fast = angles[:FAST_PAIRS]
    attention.k_proj.weight[:FAST_PAIRS, 0] = per_side
    attention.q_proj.weight[:FAST_PAIRS, 0] = per_side * fast.cos()
    attention.q_proj.weight[half : half + FAST_PAIRS, 0] = -per_side * fast.sin()
    attention.v_proj.weight[: 2 * half] = seen
    attention.o_proj.weight[:, : 2 * half] = written.T * 0.08


def _look_for_the_same(model: LlamaForCausalLM, written: Tensor, seen: Tensor) -> None:
    attention = model.model.layers[1].self_attn
    width = seen.size(0)
    slow = torch.arange(width) % (width // 2) >= SLOW_FROM
    attention.q_proj.weight[:width] = seen * slow[:, None] * 1.6
    attention.k_proj.weight[:width] = written * slow[:, None] * 1.6
    copied = orthonormal(width, seen.size(1))
    attention.v_proj.weight[:width] = copied
    attention.o_proj.weight[:, :width] = copied.T * 0.1


@torch.no_grad()
def plant(model: LlamaForCausalLM) -> None:
    """Put the circuit into head 0 of the first two layers."""
    angles: Tensor = model.model.rotary_emb.inv_freq
    model.model.embed_tokens.weight[:, 0] = CONSTANT
    written, seen = (orthonormal(2 * len(angles), model.config.hidden_size) for _ in range(2))
    _look_one_back(model, angles, written, seen)
    _look_for_the_same(model, written, seen)
