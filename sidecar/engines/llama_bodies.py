"""What is sent to llama-server, as values. Pure.

Two of its routes are used. `/completion` takes token ids, so what a client wrote can not become a
control token, and says with each frame how many tokens there are. `/v1/chat/completions` is for
pictures, and for tools that may be called: its image encoder, its parsers of each model's way to write a
call. A call that must be made goes the first way: the other's grammar lets any words stand before it.

Nothing of a client's body gets here: each field is written anew from a validated value, and every
sampling value is sent, since llama-server's own defaults (top_k 40, top_p 0.95, min_p 0.05) are not
neutral.
"""

from __future__ import annotations

import base64
from hashlib import blake2b
from typing import Any

from sidecar import chat_form
from sidecar.engines.llama_schema import enforced
from sidecar.generation import Function, GenerationRequest, Image, Message, Sampling, Tools

# The order of `sidecar.generation.Sampling`; what is not named here is not applied.
ORDER = ("penalties", "temperature", "top_k", "top_p", "min_p")
SEEDS = 2**32 - 1  # this one itself means a random seed


def seed_of(seed: int, choice: int) -> int:
    """What llama-server is given for one choice: 32 bits that depend on both, whatever 64 bits `seed` is.

    Seeds that were counted on would be shared: the second choice of one request, the first of the next.
    """
    mixed = blake2b(f"{seed} {choice}".encode(), digest_size=8).digest()
    return int.from_bytes(mixed) % SEEDS


def sampling_fields(sampling: Sampling, seed: int, context: int) -> dict[str, Any]:
    """Every value that shapes the choice of a token. Penalties look back over the whole context.

    llama-server counts the prompt's tokens for all three penalties.
    """
    return {
        "samplers": list(ORDER),
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
        "repeat_last_n": context,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "logit_bias": [list(pair) for pair in sampling.logit_bias],
        "seed": seed,
        "typical_p": 1.0,
        "dynatemp_range": 0.0,
        "xtc_probability": 0.0,
        "dry_multiplier": 0.0,
        "top_n_sigma": -1.0,
        "mirostat": 0,
        "ignore_eos": False,
    }


def completion_body(
    request: GenerationRequest,
    ids: tuple[int, ...],
    max_tokens: int,
    seed: int,
    context: int,
    schema: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The body of `/completion` for one choice, held to `schema`. Stop strings are ours (`llama_frames`)."""
    body = {
        "prompt": list(ids),
        "n_predict": max_tokens,
        "stream": True,
        "cache_prompt": True,
        "return_progress": True,
        # Otherwise the last frame brings the whole prompt back.
        "response_fields": ["content", "stop", "stop_type", "tokens_predicted", "timings", "error"],
        **sampling_fields(request.sampling, seed, context),
    }
    if schema is not None:
        body["json_schema"] = schema
    if request.logprobs is not None:
        # 0 would mean none at all; the chosen token's own is what is wanted then.
        body["n_probs"] = max(1, request.logprobs)
    return body


def chat_body(
    request: GenerationRequest, max_tokens: int, seed: int, context: int, schema: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The body of `/v1/chat/completions` for one choice. Calls have a grammar of its own there."""
    body = {
        "messages": [message_fields(message) for message in request.messages],
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "cache_prompt": True,
        "reasoning_format": "none",
        "timings_per_token": True,
        "return_progress": True,
        **sampling_fields(request.sampling, seed, context),
        **tool_fields(request.tools),
    }
    if schema is not None and request.format is not None:
        named = {"name": "answer", "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    if request.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": max(1, request.logprobs)}
    return body


def held_schema(request: GenerationRequest) -> dict[str, Any] | None:
    """What the answer must be, as llama-server enforces it; None where it is free.

    Raises Unsupported for what it would not enforce.
    """
    if request.format is not None:
        return enforced(request.format.schema or {"type": "object"}, "response_format.json_schema.schema")
    return _call_schema(request.tools) if request.tools is not None and request.must_call else None


def _call_schema(tools: Tools) -> dict[str, Any]:
    """One call of a function on offer, as an object."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": function.name}, "arguments": _parameters(function, index)},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for index, function in enumerate(tools.functions)
        if function in tools.offered
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def _parameters(function: Function, index: int) -> dict[str, Any]:
    return enforced({"type": "object", **function.parameters}, f"tools.{index}.function.parameters")


def tool_fields(tools: Tools | None) -> dict[str, Any]:
    """The functions on offer. A named one is the only one on offer, and required."""
    if tools is None or not tools.offered:
        return {}
    return {
        "tools": chat_form.functions(tools.offered),
        "tool_choice": tools.choice,
        "parallel_tool_calls": tools.parallel,
    }


def message_fields(message: Message) -> dict[str, Any]:
    """One message in OpenAI's form, which both the chat route and the template take."""
    fields: dict[str, Any] = {"role": message.role, "content": _content(message)}
    if message.name is not None:
        fields["name"] = message.name
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        fields["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    return fields


def _content(message: Message) -> str | list[dict[str, Any]]:
    if not message.images:
        return message.content
    parts: list[dict[str, Any]] = []
    done = 0
    for image in sorted(message.images, key=lambda image: image.at):
        if message.content[done : image.at]:
            parts.append({"type": "text", "text": message.content[done : image.at]})
        parts.append({"type": "image_url", "image_url": {"url": _data_url(image)}})
        done = image.at
    if message.content[done:]:
        parts.append({"type": "text", "text": message.content[done:]})
    return parts


def _data_url(image: Image) -> str:
    return f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"
