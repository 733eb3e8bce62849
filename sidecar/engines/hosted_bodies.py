"""What is sent to a hosted provider, as values. Pure.

As to llama-server, nothing of a client's body gets there: each field is written anew from a validated value.
"""

from __future__ import annotations

from typing import Any

from sidecar.engines.llama_bodies import message_fields, tool_fields
from sidecar.fallback import Provider
from sidecar.generation import GenerationRequest, Sampling

# OpenAI takes four; all of them are looked for here, whoever stops at them.
MOST_STOPS = 4


def hosted_post(
    request: GenerationRequest, provider: Provider, max_tokens: int
) -> tuple[str, dict[str, Any]]:
    """The route below the base URL, and its body. `max_tokens` counts where the request has none."""
    body: dict[str, Any] = {
        "model": provider.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        **_sampling_fields(request.sampling, provider),
    }
    if request.stop:
        body["stop"] = list(request.stop[:MOST_STOPS])
    if isinstance(request.prompt, str):
        return "/completions", body | {
            "prompt": request.prompt,
            "max_tokens": request.max_tokens or max_tokens,
        }
    body[_limit(provider)] = request.max_tokens or max_tokens
    messages = [message_fields(message) for message in request.messages]
    return "/chat/completions", body | {"messages": messages, **tool_fields(request.tools)}


def _limit(provider: Provider) -> str:
    """OpenAI's newer models refuse the name that everybody else has."""
    return "max_completion_tokens" if provider.name == "openai" else "max_tokens"


def _sampling_fields(sampling: Sampling, provider: Provider) -> dict[str, Any]:
    """What differs from the model's own distribution, which is OpenAI's default.

    Its newer models refuse any temperature that is said. Together's defaults are the model's, so there
    temperature and top_p are always said.
    """
    neutral = Sampling()
    said = ["temperature", "top_p", "frequency_penalty", "presence_penalty", "seed"]
    said += ["top_k", "min_p", "repetition_penalty"] if provider.more_samplers else []
    always = {"temperature", "top_p"} if provider.more_samplers else set()
    values = {name: getattr(sampling, name) for name in said}
    return {name: v for name, v in values.items() if name in always or v != getattr(neutral, name)}
