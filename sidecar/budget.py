"""Memory arithmetic: what the weights leave for keys and values. Pure; one unit, MiB.

    weights + workspace + CUDA context + KV pages  <=  92 % of the budget

The last 8 % are the distance to the watchdog's line: a plan that fills the budget to the brim is
one allocator's whim away from a restart.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.errors import ConfigError

MIB = 1024 * 1024
FILL = 0.92
# What a CUDA context and its libraries hold before the first tensor; measured values of others
# lie between 250 and 500 MiB, depending on the card and the driver.
CUDA_CONTEXT_MIB = 400.0


@dataclass(frozen=True, slots=True)
class KvShape:
    """What one token's keys and values look like in all layers."""

    layers: int
    kv_heads: int
    head_dim: int
    bytes_per_value: int

    @property
    def bytes_per_token(self) -> int:
        """Keys and values, all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.bytes_per_value


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the memory goes. `budget_mib` None: nobody set a limit (CPU, by hand)."""

    budget_mib: float | None
    weights_mib: float
    workspace_mib: float
    context_mib: float
    kv_mib: float
    pages: int
    page_tokens: int
    context: int

    @property
    def kv_tokens(self) -> int:
        """Tokens that fit at once, over all requests."""
        return self.pages * self.page_tokens

    @property
    def total_mib(self) -> float:
        """All parts together."""
        return self.weights_mib + self.workspace_mib + self.context_mib + self.kv_mib

    def sentence(self) -> str:
        """The plan in one line, as it is printed at start."""
        limit = "" if self.budget_mib is None else f" of {self.budget_mib:.0f} MiB"
        parts = _added(self.weights_mib, self.workspace_mib, self.context_mib, ("KV", self.kv_mib))
        return (
            f"{parts} = {self.total_mib:.0f} MiB{limit}; {self.kv_tokens} tokens at once, "
            f"{self.kv_tokens // self.context} full contexts of {self.context}"
        )


def workspace_mib(batch_tokens: int, hidden: int, intermediate: int, logits: int) -> float:
    """Activations of one step: the widest layer's, and float32 logits with two copies.

    `logits` is rows x vocabulary. Generous by design: what it overstates is margin.
    """
    activations = batch_tokens * (8 * hidden + 4 * intermediate) * 4
    return (activations + 3 * logits * 4) / MIB


def check_weights(stored_mib: float, bits_left: float, budget_mib: float | None) -> None:
    """Before anything is loaded: weights that alone are over the budget are refused.

    `bits_left` is the share of the stored size that loading keeps (0.5 for 8-bit of 16).
    """
    held_mib = stored_mib * bits_left
    if budget_mib is not None and held_mib > budget_mib * FILL:
        raise ConfigError(
            f"The model does not fit: its weights alone are {held_mib:.0f} MiB, more than "
            f"{budget_mib * FILL:.0f} MiB ({FILL:.0%} of the budget of {budget_mib:.0f}). Take a GPTQ "
            "checkpoint (MODEL_ID, MODEL_PATH), add --load_in_4bit on CUDA, or raise the budget."
        )


def plan(
    *,
    budget_mib: float | None,
    weights_mib: float,
    workspace_mib: float,
    on_cuda: bool,
    shape: KvShape,
    page_tokens: int,
    context: int,
    wanted_tokens: int,
) -> Plan:
    """Give KV the wanted tokens, or what is left of the budget if that is less.

    Raises ConfigError with the arithmetic when not even one full context is left.
    """
    context_mib = CUDA_CONTEXT_MIB if on_cuda else 0.0
    page_mib = page_tokens * shape.bytes_per_token / MIB
    wanted_pages = -(-wanted_tokens // page_tokens)
    context_pages = -(-context // page_tokens)
    left_mib = float("inf")
    if budget_mib is not None:
        left_mib = budget_mib * FILL - weights_mib - workspace_mib - context_mib
        if left_mib < context_pages * page_mib:
            one = (f"one context of {context} tokens", context_pages * page_mib)
            raise ConfigError(
                f"The model does not fit: {_added(weights_mib, workspace_mib, context_mib, one)} MiB is more "
                f"than {budget_mib * FILL:.0f} MiB ({FILL:.0%} of the budget of {budget_mib:.0f}). Raise the "
                "budget, lower CONTEXT_SIZE or choose a smaller profile."
            )
    pages = int(min(max(wanted_pages, context_pages), left_mib // page_mib))
    return Plan(
        budget_mib, weights_mib, workspace_mib, context_mib, pages * page_mib, pages, page_tokens, context
    )


def _added(weights_mib: float, workspace_mib: float, context_mib: float, last: tuple[str, float]) -> str:
    """The sum as a person reads it; without a card there is no context of CUDA's."""
    parts = [("weights", weights_mib), ("workspace", workspace_mib), ("CUDA context", context_mib), last]
    return " + ".join(f"{name} {mib:.0f}" for name, mib in parts if mib)
