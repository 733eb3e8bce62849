"""The command line of llama-server, from a profile and from what the binary knows. Pure.

A wish is a profile's key and the ways to say it, newest first. The first way that this build knows is
taken, so a renamed flag is translated; a wish without a way is dropped where the build does the same
by itself, and else refused by name before anything is started.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sidecar.errors import ConfigError
from sidecar.llama_extra import extra_words
from sidecar.llama_flags import LlamaFlags
from sidecar.profiles import OWN, LlamaCpp, Profile

# Every build since early 2024 takes a number; words (`all`) came later.
ALL_LAYERS = 999

# Its own default is 2048. Between two batches of a prompt it hears that a client has left, and tells
# how far it is; one batch is at work on the card at a time in any case (`--ubatch-size`, 512).
BATCH_TOKENS = 512

# States of a sliding window that a slot keeps in main memory, to go back to when a conversation goes on.
# Its own default is 32, of several hundred MiB each for a large model.
CHECKPOINTS = 2

# Its HTTP threads that the client of the engine takes for questions, besides one for each slot.
QUESTIONS_AT_ONCE = 4
# By themselves old builds have max(slots + 2, cores - 1) and never more (ggml-org/llama.cpp, server.cpp):
# questions and the pulse would wait behind streams. The pulse takes one, and so does a connection that is
# opened ahead; the rest is for streams that were given up.
HTTP_THREADS = QUESTIONS_AT_ONCE + 4

# Whose wish it is, where it is no key of the profile's.
MODEL, ENGINE, CPU = "the model", "the engine", "the CPU"

Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LlamaFiles:
    """The files on disk; `mmproj` reads images, and is None where the profile has none."""

    model: Path
    mmproj: Path | None = None


@dataclass(frozen=True, slots=True)
class _Wish:
    """`key` is whose wish it is. Without `needed`, no way at all is fine too."""

    key: str
    ways: tuple[Words, ...]
    needed: bool = True


def llama_args(
    profile: Profile,
    files: LlamaFiles,
    flags: LlamaFlags | None,
    *,
    port: int,
    on_gpu: bool,
) -> tuple[str, ...]:
    """What follows the name of the binary. Its key is not here: LLAMA_API_KEY in its environment.

    `flags` None is a binary that can not be asked: then each wish is said in its newest way. Raises
    ConfigError that names the flag, the profile's key and the build for a wish that has no way, and
    for an argument of `extra_args` that is not accepted.
    """
    said = llama_said(profile, files, flags, port=port, on_gpu=on_gpu)
    return tuple(word for _, words in said for word in words)


def llama_said(
    profile: Profile,
    files: LlamaFiles,
    flags: LlamaFlags | None,
    *,
    port: int,
    on_gpu: bool,
) -> list[tuple[str, Words]]:
    """The same, flag by flag, each with whose wish it is: a key of the profile, MODEL, ENGINE or CPU."""
    block = profile.llamacpp
    assert block is not None
    wishes = (
        *_always(profile, files, port),
        *_offered(profile, block),
        *_sizes(profile, block),
        *(_on_cards(profile, block) if on_gpu else _on_cpu()),
        *_memory(block, flags),
    )
    said = [(wish.key, _said(wish, profile, flags)) for wish in wishes]
    return [*said, ("llamacpp.extra_args", extra_words(block.extra_args, profile, flags))]


def _always(profile: Profile, files: LlamaFiles, port: int) -> Iterator[_Wish]:
    yield _one(MODEL, str(files.model), "--model", "-m")
    if files.mmproj is not None:
        yield _one("llamacpp.mmproj_filename", str(files.mmproj), "--mmproj", "-mm")
    # Its own default too; the help of some old builds does not say that the flag takes a value.
    yield _nicety(("--host", "127.0.0.1"))
    yield _one(ENGINE, str(port), "--port")
    # Otherwise it tells every client the path of the file.
    yield _Wish("model_id", (("--alias", profile.model_id),), needed=False)
    # A build without the flag has no such page, no such cache, or does it by default.
    yield _nicety(("--no-ui",), ("--no-webui",))
    yield _nicety(("--no-slots",))
    yield _nicety(("--no-context-shift",))
    yield _nicety(("--cache-ram", "0"), ("-cram", "0"))
    kept = str(CHECKPOINTS)
    yield _nicety(("--ctx-checkpoints", kept), ("--swa-checkpoints", kept), ("-ctxcp", kept))
    # What the sidecar planned is what is done: no fitting, and each slot has its context to itself.
    yield _nicety(("--fit", "off"))
    yield _nicety(("--no-kv-unified",), ("-no-kvu",))
    yield _nicety(("--metrics",))
    # A last turn of the assistant is a turn, as for the other engine, and not a beginning to go on from.
    yield _nicety(("--no-prefill-assistant",))
    yield _nicety(("--log-colors", "off"))
    # On SIGTERM it waits for the next ping of every stream that it still sends (measured, 0.7.0).
    yield _nicety(("--sse-ping-interval", "1"))


def _offered(profile: Profile, block: LlamaCpp) -> Iterator[_Wish]:
    """What clients may ask for."""
    # Of a model of one's own nobody has said so.
    needed = profile.supports_tools and profile.name != OWN
    yield _Wish("supports_tools", (("--jinja",),), needed=needed)
    if profile.supports_embeddings:
        yield _Wish("supports_embeddings", (("--embeddings",), ("--embedding",)))
        # Only a model made for embeddings says itself how its tokens become one vector.
        usual = None if profile.task_type == "embedding" else "mean"
        yield from _set("llamacpp.pooling", block.pooling or usual, "--pooling")
    yield from _set("llamacpp.chat_template_file", block.chat_template_file, "--chat-template-file")


def _sizes(profile: Profile, block: LlamaCpp) -> Iterator[_Wish]:
    slots = str(profile.slots)
    # llama-server divides its context among the slots; the profile's is one request's.
    yield _one("llamacpp.ctx_size", str(profile.context * profile.slots), "--ctx-size", "-c")
    yield _one("llamacpp.parallel", slots, "--parallel", "--n-parallel", "-np")
    yield _nicety(("--threads-http", str(profile.slots + HTTP_THREADS)))
    yield from _set("llamacpp.threads", block.threads, "--threads", "-t")
    yield from _set("llamacpp.threads_batch", block.threads_batch, "--threads-batch", "-tb")
    # An input is made into one vector in one piece: a longer one than the batch would be refused.
    whole = profile.context if profile.supports_embeddings else None
    batch = str(max(block.batch_size or BATCH_TOKENS, whole or 0))
    ways = (("--batch-size", batch), ("-b", batch))
    yield _Wish("llamacpp.batch_size", ways, needed=block.batch_size is not None)
    if block.ubatch_size is not None:
        yield _one("llamacpp.ubatch_size", str(block.ubatch_size), "--ubatch-size", "-ub")
    elif profile.gpu.max_batch_tokens is not None or whole:
        physical = str(whole or profile.gpu.max_batch_tokens)
        ways = (("--ubatch-size", physical), ("-ub", physical))
        yield _Wish("gpu.max_batch_tokens", ways, needed=profile.gpu.max_batch_tokens is not None)


def _on_cards(profile: Profile, block: LlamaCpp) -> Iterator[_Wish]:
    asked = block.n_gpu_layers
    layers = str(ALL_LAYERS if asked in (None, -1) else asked)
    spelt = tuple((name, layers) for name in ("--gpu-layers", "--n-gpu-layers", "-ngl"))
    # A build for CPUs alone may not list the flag: then only a number that was asked for is missed.
    yield _Wish("llamacpp.n_gpu_layers", spelt, needed=asked is not None)
    if block.split_mode is not None:
        yield _one("llamacpp.split_mode", block.split_mode, "--split-mode", "-sm")
    elif profile.gpu.tensor_parallel_size is not None:
        yield _one("gpu.tensor_parallel_size", profile.spread, "--split-mode", "-sm")
    if block.tensor_split:
        shares = ",".join(f"{share:g}" for share in block.tensor_split)
        yield _one("llamacpp.tensor_split", shares, "--tensor-split", "-ts")
    yield from _set("llamacpp.main_gpu", block.main_gpu, "--main-gpu", "-mg")
    if block.cpu_moe:
        yield _Wish("llamacpp.cpu_moe", (("--cpu-moe",), ("-cmoe",)))
    yield from _set("llamacpp.n_cpu_moe", block.n_cpu_moe, "--n-cpu-moe", "-ncmoe")


def _on_cpu() -> Iterator[_Wish]:
    # Layers alone are not enough: a build for cards would still use them for long prompts.
    yield _Wish(CPU, (("--device", "none"), ("-dev", "none")), needed=False)
    layers = (("--gpu-layers", "0"), ("--n-gpu-layers", "0"), ("-ngl", "0"))
    yield _Wish(CPU, layers, needed=False)


def _memory(block: LlamaCpp, flags: LlamaFlags | None) -> Iterator[_Wish]:
    if block.flash_attn is not None:
        # Older builds have a switch in place of the value, which is off unless said.
        other = (("--flash-attn",), ("-fa",)) if block.flash_attn == "on" else ()
        ways = (("--flash-attn", block.flash_attn), *other)
        yield _Wish("llamacpp.flash_attn", ways, needed=block.flash_attn == "on")
    yield from _set("llamacpp.cache_type_k", block.cache_type_k, "--cache-type-k", "-ctk")
    yield from _set("llamacpp.cache_type_v", block.cache_type_v, "--cache-type-v", "-ctv")
    yield from _loading(block, flags)


def _loading(block: LlamaCpp, flags: LlamaFlags | None) -> Iterator[_Wish]:
    """Newer builds have one flag with a mode for what were two switches."""
    if flags is None or flags.knows("--load-mode"):
        mapped = ["mmap"] if block.mmap or (block.mlock and block.mmap is None) else []
        mode = "+".join([*mapped, *(["mlock"] if block.mlock else [])])
        if mode or block.mmap is False:
            key = "llamacpp.mlock" if block.mlock else "llamacpp.mmap"
            yield _one(key, mode or "none", "--load-mode")
        return
    if block.mlock:
        yield _Wish("llamacpp.mlock", (("--mlock",),))
    if block.mmap is not None:
        yield _Wish("llamacpp.mmap", (("--mmap" if block.mmap else "--no-mmap",),), needed=not block.mmap)


def _one(key: str, value: str, *spellings: str) -> _Wish:
    return _Wish(key, tuple((spelling, value) for spelling in spellings))


def _set(key: str, value: str | int | None, *spellings: str) -> Iterator[_Wish]:
    if value is not None:
        yield _one(key, str(value), *spellings)


def _nicety(*ways: Words) -> _Wish:
    return _Wish(ENGINE, ways, needed=False)


def _said(wish: _Wish, profile: Profile, flags: LlamaFlags | None) -> Words:
    if flags is None:
        return wish.ways[0]
    for way in wish.ways:
        if flags.knows(way[0]) and flags.takes_value(way[0]) == (len(way) > 1):
            return way
    if not wish.needed:
        return ()
    known = " or ".join(dict.fromkeys(" ".join(way[:1]) for way in wish.ways))
    raise ConfigError(
        f"profile {profile.name}: {wish.key} needs {known}, which this llama-server ({flags.version}) does "
        "not have; remove the key, or take another build (LLAMA_SERVER_PATH)"
    )
