"""Which fields of a body mean something here: known, refused, or ignored by name."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel

from sidecar.errors import BadRequest, Unsupported

MAX_NAMED = 16

# Engine extensions of other servers. Ignoring a grammar would be a lie, forwarding it a hole.
EXTENSIONS = frozenset(
    [
        "add_special_tokens",
        "allowed_token_ids",
        "api_base",
        "api_key",
        "bad_words",
        "base_url",
        "cache_prompt",
        "cache_salt",
        "chat_template",
        "chat_template_kwargs",
        "continue_final_message",
        "custom_llm_provider",
        "documents",
        "dry_allowed_length",
        "dry_base",
        "dry_multiplier",
        "dynatemp_exponent",
        "dynatemp_range",
        "ebnf",
        "extra_body",
        "extra_headers",
        "grammar",
        "grammar_lazy",
        "grammar_triggers",
        "id_slot",
        "ignore_eos",
        "image_data",
        "include_stop_str_in_output",
        "json_schema",
        "kv_transfer_params",
        "length_penalty",
        "logits_processors",
        "lora",
        "lora_request",
        "mirostat",
        "mirostat_eta",
        "mirostat_tau",
        "mm_processor_kwargs",
        "n_discard",
        "n_indent",
        "n_keep",
        "n_probs",
        "post_sampling_probs",
        "prompt_embeds",
        "prompt_logprobs",
        "provider",
        "regex",
        "sampler_seq",
        "samplers",
        "samplers_order",
        "skip_special_tokens",
        "slot_id",
        "spaces_between_special_tokens",
        "stop_token_ids",
        "structural_tag",
        "structured_outputs",
        "t_max_predict_ms",
        "t_max_prompt_ms",
        "template",
        "tfs_z",
        "truncate_prompt_tokens",
        "typical_p",
        "use_beam_search",
        "vllm_xargs",
        "xtc_probability",
        "xtc_threshold",
    ]
)
# OpenAI's own fields that this version does not offer; silence would be the worst answer.
NOT_OFFERED = frozenset(
    [
        "audio",
        "function_call",
        "functions",
        "modalities",
        "prediction",
        "reasoning_effort",
        "verbosity",
        "web_search_options",
    ]
)
_UNSAFE = re.compile(r"[^A-Za-z0-9_.\-]")


def without_nulls(body: dict[str, Any]) -> dict[str, Any]:
    """`null` means the default."""
    return {name: value for name, value in body.items() if value is not None}


def only_known(body: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Our own route is strict: an unknown field is a typing error, and named."""
    for name in body:
        if name not in model.model_fields:
            known = ", ".join(sorted(model.model_fields))
            raise BadRequest(
                f"`{printable(name)}` is no field of this route. It knows: {known}.",
                param=printable(name),
            )
    return without_nulls(body)


def split_known(body: dict[str, Any], model: type[BaseModel]) -> tuple[dict[str, Any], dict[str, str]]:
    """Known fields, and a header that names the ignored ones; Unsupported for dangerous ones."""
    given = without_nulls(body)
    ignored = []
    for name in given:
        if name in EXTENSIONS or name.startswith("guided_"):
            raise _unsupported(name, "is an extension of another server")
        if name in NOT_OFFERED and not _neutral(name, given[name]):
            raise _unsupported(name, "is not offered by this version")
        if name not in model.model_fields:
            ignored.append(printable(name))
    known = {name: value for name, value in given.items() if name in model.model_fields}
    return known, {"x-ignored-params": ", ".join(ignored[:MAX_NAMED])} if ignored else {}


def printable(name: str) -> str:
    """A field's name, safe in a header, a log and a message."""
    return _UNSAFE.sub("_", name[:64]) or "_"


def _neutral(name: str, value: object) -> bool:
    return value in ([], {}, "none", "auto") or (name == "modalities" and value == ["text"])


def _unsupported(name: str, why: str) -> Unsupported:
    shown = printable(name)
    return Unsupported(f"`{shown}` {why} and is not supported here.", param=shown)
