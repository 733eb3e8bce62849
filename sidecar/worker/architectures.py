"""Which architectures the engine answers rightly. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.errors import ConfigError

# Each is held to `generate`'s own tokens by a test; any other is refused, never answered wrongly.
TESTED = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


def check_architecture(title: str, config: Mapping[str, Any]) -> None:
    """Raises ConfigError when `config.json` names another architecture than the tested ones."""
    architecture = (config.get("architectures") or ["none"])[0]
    if architecture not in TESTED:
        raise ConfigError(
            f"{title} is a {architecture}; this engine is tested with {', '.join(TESTED)}. "
            "Other architectures need the llama.cpp engine."
        )


def usable_context(title: str, context: int, made_for: int | None, *, asked: bool) -> int:
    """The context that is served: a default is cut to what the model was made for.

    Raises ConfigError for a longer one that was asked for.
    """
    if made_for is None or context <= made_for:
        return context
    if asked:
        raise ConfigError(f"CONTEXT_SIZE is {context}, but {title} was made for at most {made_for} tokens.")
    return made_for
