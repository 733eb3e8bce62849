"""Answers that must be JSON, or calls: which tokens may come next.

A grammar is compiled for each request, in a few milliseconds for a schema of usual size; its choices
share it. Nothing is kept for the next request: what one answer makes the lexer learn is remembered in
the grammar, up to a limit, and another request would find that limit nearer than its own schema brings it.

A schema can not cost more than the limits: when one of them is met, the request ends with a BadRequest,
while the grammar is compiled or, for what shows only later, in the midst of the answer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sidecar.errors import BadRequest, SidecarError, Unsupported
from sidecar.worker.grammar import CALL_MARKS, of_calls, of_format
from sidecar.worker.messages import Prepare

log = logging.getLogger(__name__)

WORD_BITS = 32
_LIMITS = LLParserLimits(
    verbose_errors=False,  # they would quote the schema
    max_lexer_states=50_000,  # some 0.5 kB each
    max_grammar_size=200_000,
)
Words = NDArray[np.int32]


class Constraint:
    """How far one choice is in its grammar. `words` are the allowed tokens as bits, 32 in each."""

    def __init__(self, matcher: LLMatcher, param: str) -> None:
        self._matcher = matcher
        self._param = param

    def copy(self) -> Constraint:
        """The same state, which goes on by itself."""
        return Constraint(self._matcher.deep_copy(), self._param)

    def allow(self, words: Words) -> bool:
        """Write the bits of the tokens that may come next; at the end, of those that end an answer.

        False where there is none; `error` says why.
        """
        self._matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        return not self._matcher.is_error() and bool(words.any())

    def accept(self, token: int) -> None:
        """One of the allowed tokens was chosen."""
        self._matcher.consume_token(token)

    @property
    def error(self) -> SidecarError:
        """Why nothing may come next."""
        why = _reason(self._matcher) or "no token fits"
        return BadRequest(
            f"`{self._param}` can not be followed any further: {why}. Simplify the schema.",
            param=self._param,
        )


class Grammars:
    """Makes the constraints of one model's requests. Safe to use from several threads."""

    def __init__(self, backend: Tokenizer, vocabulary: int, eos: Sequence[int]) -> None:
        """Reads the whole vocabulary: a second and 110 MiB for 128,000 tokens, holding Python's lock."""
        self._marks = [backend.token_to_id(mark) for mark in CALL_MARKS]
        self._tokenizer: LLTokenizer | None = None
        try:
            if eos:
                self._tokenizer = LLTokenizer(backend.to_str(), n_vocab=vocabulary, eos_token=list(eos))
        except Exception as error:  # whatever it does not understand of a tokenizer
            log.warning("answers of this model can not be constrained: %s", str(error)[:200])

    def constraint(self, prepare: Prepare) -> Constraint | None:
        """What holds this request's answers to their form; None where they are free.

        Raises BadRequest for a schema that is too complex or contradicts itself, Unsupported for a model
        whose tokens are not understood.
        """
        tools = prepare.tools
        if prepare.format is not None:
            grammar, param = of_format(prepare.format), "response_format"
        elif tools is not None and tools.must_call:
            grammar, param = of_calls(tools, self._marks), "tools"
        else:
            return None
        if self._tokenizer is None:
            raise Unsupported(f"`{param}`: answers of this model can not be constrained.", param=param)
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise BadRequest(f"`{param}`: the schema can not be enforced: {_reason(matcher)}.", param=param)
        return Constraint(matcher, param)


def _reason(matcher: LLMatcher) -> str:
    """Its first words: behind them come its own terms, and the schema's."""
    first, *_ = re.split(r"[<(;\n]", matcher.get_error())
    return first.strip()[:200]


def words_of(vocabulary: int, rows: int) -> Words:
    """Room for the bits of so many rows."""
    return np.zeros((rows, -(-vocabulary // WORD_BITS)), dtype=np.int32)
