"""What holds while it runs, and each value of llama-server's command line, with what set it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sidecar.explain_rows import Row, origin
from sidecar.fit import main_memory_mib
from sidecar.llama_args import BATCH_TOKENS, CPU, ENGINE, MODEL
from sidecar.profiles import Profile
from sidecar.settings import Settings

Said = Sequence[tuple[str, tuple[str, ...]]]
HEADER, ONE, AT_ONCE = "the model's header", "context of one request", "requests at once"


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is asked for, and what of it is served; of the profile's keys those that have a value."""

    asked: Profile
    served: Profile
    settings: Settings
    keys: Mapping[str, Row]
    on_card: bool
    memory_mib: int

    @property
    def is_llama(self) -> bool:
        """Whether llama-server serves it."""
        return self.served.backend == "llamacpp"

    def of_key(self, *names: str, value: int | None = None) -> str:
        """What set the first of the keys that has a value, or has this one."""
        rows = [self.keys[name] for name in names if name in self.keys]
        return next((row.origin for row in rows if value is None or row.value == str(value)), "default")


def limits(of: Sizes) -> tuple[Row, ...]:
    """What holds while it runs."""
    profile, settings = of.served, of.settings
    rows = [Row(ONE, f"{profile.context} tokens", _context(of)), Row(AT_ONCE, str(profile.slots), _slots(of))]
    if of.is_llama:
        rows.append(Row("context of all", f"{profile.context * profile.slots} tokens", _product(of)))
        rows.append(Row("layers on cards", *_layers(of)))
    rows += [
        Row("a step's prompt", f"{_batch_tokens(profile)} tokens", _batch(of)),
        Row("answer", *_answer(of)),
        Row("waiting", str(settings.max_queue), origin(settings, "max_queue")),
        *_memory(of),
    ]
    return tuple(rows)


def flags(of: Sizes, said: Said) -> tuple[Row, ...]:
    """Each flag of llama-server that has a value; of extra_args all words together."""
    return tuple(Row(words[0], " ".join(words[1:]), _why(of, key)) for key, words in said if len(words) > 1)


def _why(of: Sizes, key: str) -> str:
    fixed = {
        ENGINE: "always",
        CPU: "it runs on the CPU",
        MODEL: of.of_key("llamacpp.model_path", "llamacpp.hf_filename"),
        "llamacpp.ctx_size": _product(of),
        "llamacpp.parallel": _slots(of),
        "llamacpp.batch_size": _batch(of),
        "gpu.max_batch_tokens": ONE if of.served.supports_embeddings else "",
    }
    return fixed.get(key) or of.of_key(key)


def _context(of: Sizes) -> str:
    asked = of.asked.context
    set_by = of.of_key("gpu.max_model_len", "llamacpp.ctx_size", value=asked)
    return set_by if of.served.context == asked else f"{HEADER}, less than {asked} ({set_by})"


def _slots(of: Sizes) -> str:
    return of.of_key("gpu.max_concurrent_requests", "llamacpp.parallel", value=of.served.slots)


def _product(of: Sizes) -> str:
    return f"{of.served.slots} x {of.served.context}"


def _layers(of: Sizes) -> tuple[str, str]:
    assert of.served.llamacpp is not None
    asked = of.served.llamacpp.n_gpu_layers
    if not of.on_card:
        return "0", "it runs on the CPU"
    return "all" if asked in (None, -1) else str(asked), of.of_key("llamacpp.n_gpu_layers")


def _batch_tokens(profile: Profile) -> int:
    if profile.llamacpp is None or profile.backend != "llamacpp":
        return profile.batch_tokens
    whole = profile.context if profile.supports_embeddings else 0
    return max(profile.llamacpp.batch_size or BATCH_TOKENS, whole)


def _batch(of: Sizes) -> str:
    tokens = _batch_tokens(of.served)
    if of.is_llama and of.served.supports_embeddings and tokens == of.served.context:
        return ONE  # an input is made into one vector in one piece
    return of.of_key("llamacpp.batch_size" if of.is_llama else "gpu.max_batch_tokens")


def _answer(of: Sizes) -> tuple[str, str]:
    asked = of.served.default_max_tokens
    if asked > of.served.context:
        return f"{of.served.context} tokens", f"{ONE}, less than default_max_tokens {asked}"
    return f"{asked} tokens", of.of_key(f"{of.served.backend}.default_max_tokens")


def _memory(of: Sizes) -> Iterator[Row]:
    settings, share = of.settings, of.served.gpu.gpu_memory_fraction
    if not of.on_card:
        most_mib = main_memory_mib(settings, of.memory_mib)
        is_set = most_mib == settings.memory_budget_mib
        whose = origin(settings, "memory_budget_mib") if is_set else "all that is here"
        yield Row("main memory", f"{most_mib} MiB", whose)
        return
    yield Row("one card", f"{settings.vram_budget_mib} MiB", origin(settings, "vram_budget_mib"))
    if of.is_llama and share is not None:
        yield Row(
            "", f"{share:.0%} of the card", f"{of.of_key('gpu.gpu_memory_fraction')}, where that is less"
        )
