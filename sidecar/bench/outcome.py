"""What is asked of a server, and what became of it, as values. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked, how often, and how many at once. Without a model the server takes its own."""

    url: str
    requests: int
    concurrency: int
    max_tokens: int
    prompt: str | None = None
    model: str | None = None
    api_key: str | None = None

    def body(self, number: int) -> dict[str, Any]:
        """The chat request of that number. Our own prompts differ from their first word on."""
        prompt = self.prompt or f"{number}. Tell me a long story about the number {number}."
        model = {} if self.model is None else {"model": self.model}
        return {
            **model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


@dataclass(slots=True)
class Outcome:
    """What became of one request. `error` is None for an answer that is complete.

    `events_at_s` are the moments, from the request on, at which pieces of the answer came.
    """

    error: str | None = None
    message: str = ""
    tokens: int | None = None
    end_s: float = 0.0
    events_at_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Load:
    """All outcomes, how long they took, and what this client's own processor did meanwhile."""

    outcomes: tuple[Outcome, ...]
    seconds: float
    client_cpu_s: float
    peak_vram_bytes: float | None
