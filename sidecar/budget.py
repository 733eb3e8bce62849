"""Memory arithmetic: what the weights leave for keys and values. Pure; one unit, MiB.

    process or CUDA context + weights + workspace + KV pages  <=  92 % of the budget

On a CPU the process itself counts (its libraries, its tokens); on a card what CUDA takes for itself.
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
# A context that is offered in place of one that does not fit: whole steps, and none too short to be of use.
CONTEXT_STEP, LEAST_CONTEXT = 256, 512


@dataclass(frozen=True, slots=True)
class Demand:
    """What serving a model takes, whatever there is.

    Keys and values are taken in pages of `page_tokens`: fewer than `needed_pages` are no start, more
    than `wanted_pages` are of no use. `context` is one request's.
    """

    weights_mib: float
    workspace_mib: float
    context_mib: float
    page_mib: float
    page_tokens: int
    context: int
    needed_pages: int
    wanted_pages: int
    process_mib: float = 0.0

    @property
    def fixed_mib(self) -> float:
        """All that is there before the first key."""
        return self.process_mib + self.weights_mib + self.workspace_mib + self.context_mib

    @property
    def request_pages(self) -> int:
        """Pages of one full context."""
        return -(-self.context // self.page_tokens)

    @property
    def least_mib(self) -> float:
        """What a start takes."""
        return self.fixed_mib + self.needed_pages * self.page_mib


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
    process_mib: float = 0.0

    @property
    def kv_tokens(self) -> int:
        """Tokens that fit at once, over all requests."""
        return self.pages * self.page_tokens

    @property
    def full_contexts(self) -> int:
        """Requests of the whole context that fit at once."""
        return self.pages // -(-self.context // self.page_tokens)

    @property
    def total_mib(self) -> float:
        """All parts together."""
        return self.process_mib + self.weights_mib + self.workspace_mib + self.context_mib + self.kv_mib

    @property
    def margin_mib(self) -> float:
        """What is kept free on the way to the watchdog's line; 0 where there is none."""
        return 0.0 if self.budget_mib is None else self.budget_mib * (1 - FILL)

    def sentence(self) -> str:
        """The plan in one line, as it is printed at start."""
        limit = "" if self.budget_mib is None else f" of {self.budget_mib:.0f} MiB"
        parts = _added(self, ("KV", self.kv_mib))
        return (
            f"{parts} = {self.total_mib:.0f} MiB{limit}; {self.kv_tokens} tokens at once, "
            f"{self.full_contexts} full contexts of {self.context}"
        )


def workspace_mib(batch_tokens: int, hidden: int, intermediate: int, logits: int) -> float:
    """Activations of one step: the widest layer's, and float32 logits with two copies.

    `logits` is rows x vocabulary. Generous by design: what it overstates is margin.
    """
    activations = batch_tokens * (8 * hidden + 4 * intermediate) * 4
    return (activations + 3 * logits * 4) / MIB


def paged(
    *,
    weights_mib: float,
    workspace_mib: float,
    on_cuda: bool,
    bytes_per_token: float,
    page_tokens: int,
    context: int,
    wanted_tokens: int,
    process_mib: float = 0.0,
) -> Demand:
    """The demand of an engine that shares one pool of pages: one full context is the least.

    `process_mib` is main memory: it counts where the model lies there too.
    """
    one = -(-context // page_tokens)
    return Demand(
        weights_mib=weights_mib,
        workspace_mib=workspace_mib,
        context_mib=CUDA_CONTEXT_MIB if on_cuda else 0.0,
        page_mib=page_tokens * bytes_per_token / MIB,
        page_tokens=page_tokens,
        context=context,
        needed_pages=one,
        wanted_pages=max(one, -(-wanted_tokens // page_tokens)),
        process_mib=0.0 if on_cuda else process_mib,
    )


def plan(demand: Demand, budget_mib: float | None) -> Plan:
    """Give KV the wanted pages, or what is left of the budget if that is less.

    Raises ConfigError with the arithmetic when less is left than a start takes.
    """
    pages = demand.wanted_pages
    if budget_mib is not None:
        left_mib = budget_mib * FILL - demand.fixed_mib
        if left_mib < demand.needed_pages * demand.page_mib:
            raise ConfigError(f"The model does not fit: {_too_much(demand, budget_mib)}")
        pages = int(min(pages, left_mib // demand.page_mib))
    return Plan(
        budget_mib=budget_mib,
        weights_mib=demand.weights_mib,
        workspace_mib=demand.workspace_mib,
        context_mib=demand.context_mib,
        kv_mib=pages * demand.page_mib,
        pages=pages,
        page_tokens=demand.page_tokens,
        context=demand.context,
        process_mib=demand.process_mib,
    )


def growth_mib(plan: Plan, resident_mib: float, untouched_mib: float) -> float:
    """How much a process with a budget may still map when its model is loaded.

    `resident_mib` is what it holds then, all pages of keys and values included; `untouched_mib` is what
    it mapped before and can still touch without mapping anything. All three stay within the plan's 92 %.
    Raises ConfigError where that is too little for one step.
    """
    assert plan.budget_mib is not None, "without a budget nothing is limited"
    left_mib = plan.budget_mib * FILL - resident_mib - untouched_mib
    if left_mib + untouched_mib < plan.workspace_mib:
        raise ConfigError(
            f"The model does not fit: loaded it holds {resident_mib:.0f} MiB, and a step takes "
            f"{plan.workspace_mib:.0f}, together more than {plan.budget_mib * FILL:.0f} MiB ({FILL:.0%} of "
            f"the budget of {plan.budget_mib:.0f}). Raise the budget or choose a smaller profile."
        )
    return max(left_mib, 0.0)


def _too_much(demand: Demand, budget_mib: float) -> str:
    requests = demand.needed_pages // demand.request_pages
    what = "one context" if requests == 1 else f"{requests} contexts"
    kv = (f"{what} of {demand.context} tokens", demand.needed_pages * demand.page_mib)
    added = _added(demand, kv)
    return (
        f"{added} MiB is more than {budget_mib * FILL:.0f} MiB ({FILL:.0%} of the budget of "
        f"{budget_mib:.0f}). Raise the budget, lower CONTEXT_SIZE or choose a smaller profile."
    )


def smaller_context(demand: Demand, budget_mib: float) -> int | None:
    """The largest context with which as many requests would fit as a start takes; None is none of use."""
    left_mib = budget_mib * FILL - demand.fixed_mib
    requests = demand.needed_pages // demand.request_pages
    token_mib = demand.request_pages * demand.page_mib * requests / demand.context
    tokens = int(left_mib / token_mib) // CONTEXT_STEP * CONTEXT_STEP if left_mib > 0 else 0
    return tokens if LEAST_CONTEXT <= tokens < demand.context else None


def fewer_requests(demand: Demand, budget_mib: float) -> int | None:
    """How many requests of the same context would fit where a start takes more; None is not even one."""
    left_mib = budget_mib * FILL - demand.fixed_mib
    requests = int(left_mib / (demand.request_pages * demand.page_mib)) if left_mib > 0 else 0
    return requests if 0 < requests < demand.needed_pages // demand.request_pages else None


def needed_budget_mib(demand: Demand) -> int:
    """The smallest budget that takes the start, in whole steps of 256 MiB; of 16 below 1 GiB."""
    least_mib = demand.least_mib / FILL
    step_mib = 256 if least_mib > 1024 else 16
    return int(-(-least_mib // step_mib) * step_mib)


def named_parts(of: Demand | Plan) -> list[tuple[str, float]]:
    """What is there before the first key, by name; of process and CUDA context there is but one."""
    parts = [
        ("process", of.process_mib),
        ("weights", of.weights_mib),
        ("workspace", of.workspace_mib),
        ("CUDA context", of.context_mib),
    ]
    return [(name, mib) for name, mib in parts if mib]


def _added(of: Demand | Plan, last: tuple[str, float]) -> str:
    """The sum as a person reads it."""
    return " + ".join(f"{name} {mib:.0f}" for name, mib in (*named_parts(of), last))
