"""What of a context is left for an answer. Pure; the same for every engine."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.errors import BadRequest, ContextOverflow


def answer_tokens(prompt_tokens: int, asked: int | None, default: int, context: int) -> int:
    """How many tokens the answer may have: what was asked for, or the default cut to what is left.

    Raises ContextOverflow when the prompt leaves no room for it.
    """
    left = context - prompt_tokens
    wanted = min(default, max(left, 1)) if asked is None else asked
    if wanted > left:
        raise ContextOverflow.of(prompt_tokens, wanted, context)
    return wanted


def check_length(texts: Sequence[str], longest_token_bytes: int, asked: int | None, context: int) -> None:
    """A text so long that no tokenising could make it fit is refused without doing it.

    As UTF-8 no token stands for more than `longest_token_bytes`. Raises ContextOverflow.
    """
    least = sum(len(text.encode()) for text in texts) // max(1, longest_token_bytes)
    check_count(least, asked, context)


def check_count(prompt_tokens: int, asked: int | None, context: int) -> None:
    """More tokens than there is context are refused before anything looks at each. Raises ContextOverflow."""
    if prompt_tokens > context:
        raise ContextOverflow.of(prompt_tokens, asked or 1, context)


def check_biases(biases: Sequence[tuple[int, float]], vocabulary: int) -> None:
    """A bias on a token that there is not would be nothing, silently. Raises BadRequest."""
    for token, _ in biases:
        if not 0 <= token < vocabulary:
            raise BadRequest(
                f"logit_bias names token {token}; the vocabulary ends at {vocabulary - 1}.",
                param="logit_bias",
            )


def check_ids(ids: Sequence[int], vocabulary: int) -> None:
    """Raises BadRequest naming the first id that is no token."""
    for token in ids:
        if not 0 <= token < vocabulary:
            raise BadRequest(
                f"Token id {token} is outside the vocabulary (0 to {vocabulary - 1}).", param="prompt"
            )
