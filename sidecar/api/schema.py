"""The bodies that are accepted: types and ranges. Strict: "128" and true are no numbers.

`null` means the default (clients send it), so nulls are dropped before a body gets here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)

from sidecar.api.fields import printable
from sidecar.errors import BadRequest
from sidecar.generation import Sampling

TIMEOUT_DEFAULT_S = 60.0
TIMEOUT_MAX_S = 300.0
MAX_CHOICES = 4
MAX_STOPS = 16
MAX_STOP_CHARS = 1024
MAX_MESSAGES = 1024
MAX_BIASES = 1024
MAX_METADATA = 16
INT32_MAX = 2**31 - 1
INT64 = 2**63
# What is smaller would leave single precision: a division by nothing, a nucleus without a token.
MIN_TEMPERATURE = 1e-5
MIN_TOP_P = 1e-6


def _integral(value: object) -> object:
    """4.0 is an integer in JSON's terms; some clients know no other numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _stops(value: object) -> object:
    stops = (value,) if isinstance(value, str) else value
    if not isinstance(stops, list | tuple) or len(stops) > MAX_STOPS:
        raise ValueError(f"must be a string or a list of at most {MAX_STOPS} strings")
    for stop in stops:
        if not isinstance(stop, str) or not 0 < len(stop) <= MAX_STOP_CHARS or "\0" in stop:
            raise ValueError(f"each must be text of 1 to {MAX_STOP_CHARS} characters without NUL")
    return tuple(stops)


def _biases(value: object) -> object:
    if not isinstance(value, dict) or len(value) > MAX_BIASES:
        raise ValueError(f"must be an object with at most {MAX_BIASES} token ids")
    return tuple(_bias(token, bias) for token, bias in value.items())


def _bias(token: str, bias: object) -> tuple[int, float]:
    if not (token.isascii() and token.isdigit() and len(token) <= 10 and int(token) <= INT32_MAX):
        raise ValueError("each key must be a token id in digits")
    if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
        raise ValueError("each value must be a number between -100 and 100")
    return int(token), float(bias)


def _few(value: object) -> object:
    """Before each pair is looked at: a hundred thousand wrong ones would be as many errors."""
    if isinstance(value, dict) and len(value) > MAX_METADATA:
        raise ValueError(f"must have at most {MAX_METADATA} pairs")
    return value


_STOP_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_BIAS_SCHEMA = {"type": "object", "additionalProperties": {"type": "number"}}

Int = Annotated[int, BeforeValidator(_integral)]
Stops = Annotated[tuple[str, ...], BeforeValidator(_stops), WithJsonSchema(_STOP_SCHEMA)]
Biases = Annotated[
    tuple[tuple[int, float], ...],
    BeforeValidator(_biases),
    WithJsonSchema(_BIAS_SCHEMA),
]
Anything = Annotated[Any, WithJsonSchema({})]


class Body(BaseModel):
    """What both dialects share."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    seed: Annotated[Int | None, Field(ge=-INT64, lt=INT64)] = None
    stop: Stops = ()
    timeout: Annotated[float, Field(gt=0, le=TIMEOUT_MAX_S)] = TIMEOUT_DEFAULT_S

    def sampling(self) -> Sampling:
        """The same in the engine's words: next to no temperature, or no nucleus, is greedy."""
        if self.temperature < MIN_TEMPERATURE or self.top_p < MIN_TOP_P:
            return Sampling(temperature=0.0, seed=self.seed)
        return Sampling(self.temperature, self.top_p, seed=self.seed)


class GenerateBody(Body):
    """POST /generate: raw text in, raw text out. Greedy unless a temperature is given."""

    prompt: Annotated[str, Field(min_length=1)]
    max_length: Annotated[Int, Field(ge=1, le=INT32_MAX, description="New tokens.")] = 128
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0


class StreamOptions(BaseModel):
    """`include_usage` adds one chunk with the token counts before the end."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    include_usage: bool = False


OF_THE_ANSWER = "Counts the answer's tokens; under llama-server those of the prompt too."


class OpenAIBody(Body):
    """What chat and completions share."""

    model: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f]+$")] = ""
    max_tokens: Annotated[Int | None, Field(ge=1, le=INT32_MAX)] = None
    n: Annotated[Int, Field(ge=1, le=MAX_CHOICES)] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, description=OF_THE_ANSWER)] = 0.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2, description=OF_THE_ANSWER)] = 0.0
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    top_k: Annotated[Int, Field(ge=-1, le=INT32_MAX)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    logit_bias: Biases = ()
    user: Annotated[str, Field(max_length=1024)] = ""
    metadata: Annotated[dict[str, str], BeforeValidator(_few), Field(max_length=MAX_METADATA)] = {}

    def sampling(self) -> Sampling:
        """Every field that shapes the distribution. `top_k` -1 is off, as 0 is."""
        base = super().sampling()
        return Sampling(
            temperature=base.temperature,
            top_p=base.top_p,
            top_k=max(0, self.top_k),
            min_p=self.min_p,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
            logit_bias=self.logit_bias,
        )

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with its token counts."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatBody(OpenAIBody):
    """POST /v1/chat/completions."""

    messages: Annotated[
        list[Anything],
        Field(min_length=1, max_length=MAX_MESSAGES),
        WithJsonSchema({"type": "array", "items": {"type": "object"}, "minItems": 1}),
    ]
    max_completion_tokens: Annotated[Int | None, Field(ge=1, le=INT32_MAX)] = None
    logprobs: bool = False
    top_logprobs: Annotated[Int | None, Field(ge=0, le=20)] = None
    tools: Anything = None
    tool_choice: Anything = None
    parallel_tool_calls: bool = True
    response_format: Anything = None


class CompletionBody(OpenAIBody):
    """POST /v1/completions: raw text or token ids; several prompts make several choices."""

    prompt: Anything
    logprobs: Annotated[Int | None, Field(ge=0, le=5)] = None
    echo: bool = False
    suffix: str | None = None
    best_of: Annotated[Int | None, Field(ge=1, le=20)] = None


class ModelBody(BaseModel):
    """POST /models/load and /models/unload. Without a name it is the model that was served last."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    model: Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x1f]*$")] = ""


class EmbeddingsBody(BaseModel):
    """POST /v1/embeddings: a text, texts, token ids, or lists of token ids."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    model: Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x1f]*$")] = ""
    input: Anything
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Anything = None
    user: Annotated[str, Field(max_length=1024)] = ""
    timeout: Annotated[float, Field(gt=0, le=TIMEOUT_MAX_S)] = TIMEOUT_DEFAULT_S


B = TypeVar("B", bound=BaseModel)


def validate(model: type[B], fields: dict[str, Any]) -> B:
    """The body as a value; BadRequest names the first field that can not be used."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = [printable(str(part)) for part in first["loc"] if part not in ("int", "float")]
        param = ".".join(where[:4])
        text = _range(model, param) if first["type"] in _OUTSIDE else first["msg"]
        text = text.removeprefix("Value error, ")
        raise BadRequest(f"`{param}`: {text}.", param=param) from None


_OUTSIDE = frozenset({"greater_than", "greater_than_equal", "less_than", "less_than_equal"})
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _range(model: type[BaseModel], name: str) -> str:
    """Both ends: whoever missed one need not find the other by trying."""
    rules = model.model_fields[name].metadata
    ends = [
        f"{words} {getattr(rule, end)}"
        for rule in rules
        for end, words in _BOUNDS.items()
        if hasattr(rule, end)
    ]
    return f"must be {' and '.join(ends)}"
