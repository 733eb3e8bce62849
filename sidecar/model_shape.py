"""The sizes of a model that its memory follows from, as `config.json` or a GGUF header tells them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.errors import ConfigError


@dataclass(frozen=True, slots=True)
class KvLayers:
    """`count` layers of one kind: numbers of one token's keys and of its values in each of them.

    `window` is how many tokens back such a layer looks; None is all of them.
    """

    count: int
    keys: int
    values: int
    window: int | None = None

    def kept(self, tokens: int, ahead: int | None, step: int = 1) -> int:
        """How many of the sequence's tokens such a layer keeps.

        With `ahead`, no more than it looks back at and so many of a batch, in whole steps; without, all.
        """
        if ahead is None or self.window is None:
            return tokens
        return min(tokens, -(-(self.window + ahead) // step) * step)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """`intermediate` is the widest layer that one token goes through; `trained_context` as it is said."""

    architecture: str
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    kv: tuple[KvLayers, ...]
    trained_context: int | None = None

    def kv_values(self, tokens: int, *, ahead: int | None = None, step: int = 1) -> tuple[int, int]:
        """(keys, values) in numbers that `tokens` of one sequence take; see `KvLayers.kept`."""
        kept = [group.kept(tokens, ahead, step) for group in self.kv]
        keys = sum(group.count * group.keys * some for group, some in zip(self.kv, kept, strict=True))
        values = sum(group.count * group.values * some for group, some in zip(self.kv, kept, strict=True))
        return keys, values


def from_config(config: Mapping[str, Any], title: str) -> ModelShape:
    """The shape that transformers gives the model. Raises ConfigError where sizes are missing or unknown."""
    text = config.get("text_config") or config
    _refuse_unknown(title, text, "kv_lora_rank", "ssm_cfg", "state_size", "linear_num_value_heads")
    try:
        hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
        layers = int(text["num_hidden_layers"])
        head_dim = int(text.get("head_dim") or hidden // heads)
        numbers = int(text.get("num_key_value_heads") or heads) * head_dim
        experts = int(text.get("num_experts_per_tok") or 0)
        dense = int(text.get("intermediate_size") or 0)
        sparse = experts * int(text.get("moe_intermediate_size") or dense)
        return ModelShape(
            architecture=str((config.get("architectures") or ["unknown"])[0]),
            layers=layers,
            hidden=hidden,
            intermediate=max(dense, sparse),
            vocabulary=int(text["vocab_size"]),
            kv=_grouped((numbers, numbers, window) for window in _config_windows(text, layers)),
            trained_context=text.get("max_position_embeddings"),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"{title}: its config.json gives no usable sizes ({error}).") from None


def _config_windows(text: Mapping[str, Any], layers: int) -> list[int | None]:
    """How far back each layer looks, by the rules of transformers' configurations."""
    window = text.get("sliding_window")
    if window is None or text.get("use_sliding_window") is False:
        return [None] * layers
    if isinstance(kinds := text.get("layer_types"), Sequence) and len(kinds) == layers:
        return [int(window) if kind == "sliding_attention" else None for kind in kinds]
    if pattern := int(text.get("sliding_window_pattern") or 0):
        return [None if (layer + 1) % pattern == 0 else int(window) for layer in range(layers)]
    if text.get("model_type") == "gemma2":  # every second layer, which its configuration does not say
        return [int(window) if layer % 2 == 0 else None for layer in range(layers)]
    begin = int(text.get("max_window_layers") or 0) if "use_sliding_window" in text else 0
    return [None if layer < begin else int(window) for layer in range(layers)]


def from_gguf(metadata: Mapping[str, Any], vocabulary: int, title: str) -> ModelShape:
    """The shape that llama.cpp gives the model (ggml-org/ggml, docs/gguf.md).

    Raises ConfigError where sizes are missing or keys and values are kept in a way that is not known.
    """
    name = str(metadata.get("general.architecture", ""))
    own = {key.removeprefix(f"{name}."): said for key, said in metadata.items() if key.startswith(f"{name}.")}
    _refuse_unknown(title, own, "attention.kv_lora_rank", "ssm.state_size")
    try:
        hidden, layers = int(own["embedding_length"]), int(own["block_count"])
        heads = _each(own.get("attention.head_count"), layers)
        kv_heads = _each(own.get("attention.head_count_kv", own.get("attention.head_count")), layers)
        head_dim = hidden // max(max(heads), 1)
        keys = int(own.get("attention.key_length") or head_dim)
        values = int(own.get("attention.value_length") or head_dim)
        dense = max(_each(own.get("feed_forward_length", 0), layers))
        experts = int(own.get("expert_used_count") or 0)
        sparse = experts * int(own.get("expert_feed_forward_length") or dense)
        windows = _gguf_windows(name, own, layers)
        return ModelShape(
            architecture=name,
            layers=layers,
            hidden=hidden,
            intermediate=max(dense, sparse),
            vocabulary=vocabulary,
            kv=_grouped((n * keys, n * values, w) for n, w in zip(kv_heads, windows, strict=True)),
            trained_context=own.get("context_length"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{title}: its header gives no usable sizes ({error}).") from None


# Of those llama.cpp windows, how many layers make a round, of which the last looks at everything
# (ggml-org/llama.cpp, src/models: set_swa_pattern). A file may say it itself, layer by layer.
_ROUNDS = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "cohere2": 4, "gpt-oss": 2, "llama4": 4}


def _gguf_windows(name: str, own: Mapping[str, Any], layers: int) -> list[int | None]:
    window = own.get("attention.sliding_window")
    said = own.get("attention.sliding_window_pattern")
    if not window:
        return [None] * layers
    if isinstance(said, Sequence) and len(said) == layers:
        return [int(window) if slides else None for slides in said]
    pattern = int(said) if isinstance(said, int) else _ROUNDS.get(name, 0)
    # An architecture that is not in the table keeps everything: more is planned than is taken.
    return [None if not pattern or (layer + 1) % pattern == 0 else int(window) for layer in range(layers)]


def _each(said: Any, layers: int) -> list[int]:
    """One number for each layer; a single one is everybody's."""
    numbers = list(said) if isinstance(said, Sequence) else [said] * layers
    if len(numbers) != layers:
        raise ValueError(f"{len(numbers)} numbers for {layers} layers")
    return [int(number) for number in numbers]


def _grouped(each: Iterator[tuple[int, int, int | None]]) -> tuple[KvLayers, ...]:
    """Layers that are alike together; one that keeps nothing (no attention) is left out."""
    return tuple(KvLayers(count, *kind) for kind, count in Counter(each).items() if kind[0] or kind[1])


def _refuse_unknown(title: str, sizes: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if sizes.get(name):
            raise ConfigError(
                f"{title} keeps its keys and values in a way that can not be planned here ({name}); "
                "write the profile's vram_mib by hand."
            )
