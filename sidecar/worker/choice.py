"""One answer in the making: its tokens, its pages, its text, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field

from sidecar.generation import FinishReason, TokenLogprob
from sidecar.stops import Scores
from sidecar.worker.blocks import Table
from sidecar.worker.constraint import Constraint
from sidecar.worker.messages import Output, Prepare
from sidecar.worker.sampler import Row
from sidecar.worker.tokens import Detokenizer, Tokens


@dataclass(slots=True)
class Choice:
    """A request has `n` of these. `ids` grow; `computed` of them have keys and values in pages."""

    request_id: str
    index: int
    ids: list[int]
    prompt_tokens: int
    max_tokens: int
    row: Row
    text: Detokenizer
    alternatives: int | None
    table: Table | None = None
    computed: int = 0
    finish: FinishReason | None = None
    scores: Scores = field(default_factory=Scores)

    @property
    def generated(self) -> int:
        """Tokens sampled so far, a final end token included."""
        return len(self.ids) - self.prompt_tokens

    def accept(self, token: int, eos: frozenset[int], scored: TokenLogprob | None) -> Output:
        """Take one sampled token; the output says what text it made certain and whether it ends."""
        self.ids.append(token)
        self.row.position += 1
        if self.row.constraint is not None:
            self.row.constraint.accept(token)
        self.row.counts[token] = self.row.counts.get(token, 0) + 1
        ended = token in eos
        piece = "" if ended else self.text.feed(token)
        if ended or self.text.stopped:
            self.finish = "stop"
        elif self.generated >= self.max_tokens:
            self.finish = "length"
        if self.finish is not None and not self.text.stopped:
            piece += self.text.flush()
        if scored is not None and not ended:
            self.scores.add((scored,))
        shown = self.scores.shown(piece, ended=self.finish is not None, stopped=self.text.stopped)
        return Output(self.request_id, self.index, piece, self.finish, shown)


@dataclass(slots=True)
class Job:
    """One prepared request. `waiting` choices start when the first one's prompt is computed.

    Each choice follows its own copy of `constraint`.
    """

    prepare: Prepare
    ids: tuple[int, ...]
    max_tokens: int
    seed: int
    constraint: Constraint | None = None
    choices: list[Choice] = field(default_factory=list)
    cached_tokens: int = 0

    def choice(self, index: int, tokens: Tokens) -> Choice:
        """The choice of that index, not yet begun."""
        sampling = self.prepare.sampling
        penal = sampling.repetition_penalty != 1.0
        row = Row(sampling, self.seed, index, 0, frozenset(self.ids) if penal else frozenset())
        row.constraint = None if self.constraint is None else self.constraint.copy()
        return Choice(
            self.prepare.id, index, list(self.ids), len(self.ids), self.max_tokens, row,
            Detokenizer(tokens, self.prepare.stop, self.ids), self.prepare.logprobs,
        )  # fmt: skip
