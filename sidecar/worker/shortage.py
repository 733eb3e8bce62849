"""Steps for which there was no memory, and what must be free before one like them is tried again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.budget import Plan
from sidecar.errors import OutOfMemory


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the steps of a request get: tokens computed in one of them, tokens that it then looks at."""

    step_tokens: int
    kv_tokens: int

    def reaches(self, other: Shape) -> bool:
        """Whether a request of this shape comes to a step of the other one's."""
        return self.step_tokens >= other.step_tokens and self.kv_tokens >= other.kv_tokens


@dataclass(frozen=True, slots=True)
class Shortage:
    """A step of this shape failed; more than `needed_mib` has to be free for the next one."""

    shape: Shape
    needed_mib: float

    def within(self, other: Shortage) -> bool:
        """Whether the other one says as much and more."""
        return self.shape.reaches(other.shape) and self.needed_mib <= other.needed_mib

    def error(self, free_mib: float) -> OutOfMemory:
        """What its requests are told."""
        return OutOfMemory(
            f"Memory ran out: a step of {self.shape.step_tokens} of this request's tokens needs about "
            f"{self.needed_mib:.0f} MiB, {free_mib:.0f} MiB are free. Shorten the prompt or ask for fewer "
            "tokens; the same request is not taken again before there is room."
        )


def shortage(shape: Shape, plan: Plan, batch_tokens: int, wanted_mib: float, free_mib: float) -> Shortage:
    """What a failed step tells: `free_mib` did not suffice for it, nor its share of the plan's workspace.

    `wanted_mib` is what was asked for last; whoever names none asked for something small.
    """
    share_mib = plan.workspace_mib * min(shape.step_tokens / batch_tokens, 1.0)
    return Shortage(shape, max(share_mib, free_mib + max(wanted_mib, 1.0)))


def of_shape(known: tuple[Shortage, ...], shape: Shape) -> Shortage | None:
    """What stands in the way of a request: the most that any step it comes to needs."""
    met = [one for one in known if shape.reaches(one.shape)]
    return max(met, key=lambda one: one.needed_mib, default=None)


def without(known: tuple[Shortage, ...], free_mib: float) -> tuple[Shortage, ...]:
    """Those for which there is still no room."""
    return tuple(one for one in known if one.needed_mib > free_mib)
