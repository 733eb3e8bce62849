"""The command line of llama-server: translated, refused by name, and never anybody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigError
from sidecar.llama_args import LlamaFiles, llama_args
from sidecar.llama_denied import DENIED
from sidecar.llama_flags import LlamaFlags, parse_help
from sidecar.profiles import Profile

HELP = Path(__file__).parent / "llama_help"
FILES = LlamaFiles(Path("/m/model.gguf"))
VERSION = "0.7.0 (build 11669)"
VERSION_TEXT = f"version: {VERSION}\nbuilt with GNU 16.2.0 for Linux x86_64\n"


def build(name: str) -> LlamaFlags:
    return parse_help((HELP / f"{name}.txt").read_text(), VERSION_TEXT)


NEW, EARLY, MID = build("build-11669"), build("early-2024"), build("mid-2024")


def profile(block: dict[str, Any] | None = None, gpu: dict[str, Any] | None = None, **top: Any) -> Profile:
    fields = {"model_path": "/m/model.gguf", **(block or {})}
    return Profile.model_validate(
        {"name": "p", "backend": "llamacpp", "model_id": "m", "llamacpp": fields, "gpu": gpu or {}, **top}
    )


def line(
    made: Profile, flags: LlamaFlags | None = NEW, files: LlamaFiles = FILES, on_gpu: bool = True
) -> str:
    return " ".join(("", *llama_args(made, files, flags, port=4711, on_gpu=on_gpu), ""))


def refused(made: Profile, flags: LlamaFlags | None = NEW) -> str:
    with pytest.raises(ConfigError) as found:
        line(made, flags)
    assert "\n" not in found.value.message
    return found.value.message


PLAIN = profile({"ctx_size": 2048, "parallel": 3, "threads": 2})


def test_a_plain_profile_on_a_new_build() -> None:
    assert line(PLAIN) == (
        " --model /m/model.gguf --host 127.0.0.1 --port 4711 --alias m --no-ui --no-slots"
        " --no-context-shift --cache-ram 0 --ctx-checkpoints 2 --fit off --no-kv-unified --metrics"
        " --no-prefill-assistant --log-colors off --sse-ping-interval 1 --jinja --ctx-size 6144"
        " --parallel 3 --threads-http 11 --threads 2"
        " --batch-size 512 --gpu-layers 999 "
    )


def test_the_same_profile_on_a_build_of_early_2024() -> None:
    assert line(PLAIN, EARLY) == (
        " --model /m/model.gguf --port 4711 --metrics --ctx-size 6144 --n-parallel 3 --threads 2"
        " --batch-size 512 --n-gpu-layers 999 "
    )


@pytest.mark.parametrize(
    ("block", "flags", "said"),
    [
        ({"flash_attn": True}, NEW, "--flash-attn on"),
        ({"flash_attn": "auto"}, NEW, "--flash-attn auto"),
        ({"flash_attn": True}, EARLY, "--flash-attn"),
        ({"mlock": True}, NEW, "--load-mode mmap+mlock"),
        ({"mlock": True, "mmap": False}, NEW, "--load-mode mlock"),
        ({"mmap": False}, NEW, "--load-mode none"),
        ({"mmap": True}, NEW, "--load-mode mmap"),
        ({"mlock": True, "mmap": False}, EARLY, "--mlock --no-mmap"),
        ({"cache_type_k": "q8_0", "cache_type_v": "q8_0"}, NEW, "--cache-type-k q8_0 --cache-type-v q8_0"),
        ({"n_gpu_layers": 33}, NEW, "--gpu-layers 33"),
        ({"n_gpu_layers": 33}, EARLY, "--n-gpu-layers 33"),
        ({"n_gpu_layers": 0}, MID, "--gpu-layers 0"),
        ({"split_mode": "row", "main_gpu": 0}, NEW, "--split-mode row --main-gpu 0"),
        ({"cpu_moe": True}, NEW, "--cpu-moe"),
        ({"n_cpu_moe": 12}, NEW, "--n-cpu-moe 12"),
        ({"threads_batch": 8, "batch_size": 256}, NEW, "--threads-batch 8 --batch-size 256"),
        ({"ubatch_size": 256}, NEW, "--batch-size 512 --ubatch-size 256"),
        ({"chat_template_file": "/t.jinja"}, NEW, "--chat-template-file /t.jinja"),
        ({"extra_args": ["--rope-scaling", "yarn"]}, NEW, "--rope-scaling yarn"),
        ({"extra_args": ["--prio", "-1"]}, NEW, "--prio -1"),
        ({"extra_args": ["--swa_full", "--lora", "/x"]}, NEW, "--swa_full --lora /x"),
        (
            {"extra_args": ["--control-vector-layer-range", "1", "-1"]},
            NEW,
            "--control-vector-layer-range 1 -1",
        ),
    ],
)
def test_keys_and_what_they_become(block: dict[str, Any], flags: LlamaFlags, said: str) -> None:
    assert f" {said} " in line(profile(block), flags)
    assert f" {said} " not in line(profile(), flags)


def test_flash_attention_off_is_nothing_where_it_is_a_switch() -> None:
    assert " --flash-attn off " in line(profile({"flash_attn": False}))
    assert "flash" not in line(profile({"flash_attn": False}), EARLY)


def test_all_layers_are_a_number_that_every_build_takes() -> None:
    assert " --gpu-layers 999 " in line(profile({"n_gpu_layers": -1}))
    assert line(profile({"n_gpu_layers": -1})) == line(profile())


def test_cards_and_shares() -> None:
    four = {"device_ids": [0, 1, 2, 3], "tensor_parallel_size": 4}
    assert " --split-mode layer --tensor-split 3,1,1,1.5 " in line(
        profile({"tensor_split": [3, 1, 1, 1.5]}, four)
    )
    assert " --split-mode none " in line(profile(gpu={"tensor_parallel_size": 1}))
    assert "split" not in line(profile())


def test_without_a_card_no_layer_and_no_device() -> None:
    said = line(profile({"n_gpu_layers": 33, "split_mode": "row"}), on_gpu=False)
    assert " --device none --gpu-layers 0 " in said
    assert "33" not in said
    assert "split" not in said
    assert " --n-gpu-layers 0 " in line(profile(), EARLY, on_gpu=False)


def test_prompt_batches_are_ubatches_unless_those_are_set() -> None:
    assert " --ubatch-size 512 " in line(profile(gpu={"max_batch_tokens": 512}))
    assert " --ubatch-size 64 " in line(profile({"ubatch_size": 64}, {"max_batch_tokens": 512}))
    assert "ubatch" not in line(profile())


def test_images() -> None:
    seeing = profile({"mmproj_filename": "p.gguf"}, supports_vision=True)
    files = LlamaFiles(Path("/m/model.gguf"), Path("/m/p.gguf"))
    assert " --mmproj /m/p.gguf " in line(seeing, files=files)
    with pytest.raises(ConfigError, match=r"llamacpp\.mmproj_filename needs --mmproj"):
        line(seeing, EARLY, files)


def test_embeddings_have_one_vector() -> None:
    said = line(profile(supports_embeddings=True))
    assert " --embeddings --pooling mean " in said
    assert " --pooling last " in line(profile({"pooling": "last"}, supports_embeddings=True))
    made_for_it = profile(supports_embeddings=True, task_type="embedding")
    assert "pooling" not in line(made_for_it)
    assert " --embedding " in line(made_for_it, MID)
    assert "embedding" not in line(profile({"pooling": "last"}))


def test_an_input_of_the_whole_context_becomes_a_vector() -> None:
    """In one piece: a longer one than the physical batch would be a 500."""
    said = line(profile({"ctx_size": 2048}, {"max_batch_tokens": 64}, supports_embeddings=True))
    assert " --batch-size 2048 --ubatch-size 2048 " in said


def test_what_a_build_can_not_do_is_refused_by_name() -> None:
    said = refused(profile(supports_tools=True), EARLY)
    assert said.startswith("profile p: supports_tools needs --jinja, which this llama-server")
    assert VERSION in said
    assert "llamacpp.cache_type_v" in refused(profile({"cache_type_v": "q8_0"}), EARLY)
    bare = parse_help("--port PORT\n-m FNAME\n-c N\n-np N\n")
    assert "llamacpp.flash_attn needs --flash-attn or -fa, " in refused(profile({"flash_attn": True}), bare)
    assert "llamacpp.n_cpu_moe" in refused(profile({"n_cpu_moe": 4}), MID)


def test_a_binary_that_can_not_be_asked_is_told_in_the_newest_words() -> None:
    made = profile({"flash_attn": "auto", "mlock": True, "n_gpu_layers": 5})
    assert line(made, None) == line(made, NEW)


@pytest.mark.parametrize("spelling", sorted(DENIED))
def test_extra_args_may_not_say(spelling: str) -> None:
    value = f"{spelling}=x" if spelling.startswith("--") else spelling
    for words in (
        [spelling],
        ["--numa", "isolate", value],
        [spelling.replace("-", "_").replace("__", "--", 1)],
    ):
        if not words[-1].startswith("_"):
            said = refused(profile({"extra_args": words}), None)
            assert repr(words[-1]) in said
            assert "llamacpp.extra_args" in said


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["-fa", "on"], "set the profile's key llamacpp.flash_attn"),
        (["--ctx-size=1"], "set the profile's key llamacpp.ctx_size"),
        (["--fim-qwen-7b-default"], "fetch files"),
        (["--a-new-model-default"], "fetch files"),
        (["--api_key", "x"], "who gets in"),
        (["--no-such-flag"], f"this llama-server ({VERSION}) does not have it"),
        (["value", "--numa", "isolate"], "must be a flag"),
        (["--lora=/x"], "write the flag and its value as two words"),
        (["--temp=0"], "each request says this itself"),
        (["-r", "stop"], "each request says this itself"),
        (["--grammar-file", "/g"], "each request says this itself"),
        (["--override-kv", "tokenizer.ggml.eos_token_id=int:0"], "reads the model's header itself"),
        (["--reasoning-budget", "0"], "some requests and not of others"),
        (["--cache-reuse", "256"], "depend on earlier requests"),
        (["--spec-synth-len", "3"], "for benchmarks"),
        (["--prefill-assistant"], "the engine counts on its own value"),
        (["--numa"], "'--numa' is not accepted: its value is missing: it takes 1, and has 0"),
        (["--numa", "--swa-full"], "its value is missing"),
        (["--control-vector-layer-range", "1"], "it takes 2, and has 1"),
        (["--swa-full", "yes"], "'yes' is not accepted: --swa-full before it takes no value"),
        (["--lora", "/x", "/y"], "'/y' is not accepted: --lora before it takes 1 value"),
    ],
)
def test_why_extra_args_are_refused(words: list[str], why: str) -> None:
    assert why in refused(profile({"extra_args": words}))


@pytest.mark.parametrize(
    "words",
    [
        ["--chat-template-kwargs", '{"enable_thinking": false}'],
        ["--reasoning", "off"],
        ["--reasoning-effort", "low"],
        ["--no-reasoning-preserve"],
        ["--lora", "/adapter.gguf", "--rope-scaling", "yarn"],
    ],
)
def test_what_the_model_is_and_its_template_is_told_is_the_owners_word(words: list[str]) -> None:
    assert line(profile({"extra_args": words}), NEW).endswith(" ".join(("", *words, "")))


def test_a_new_spelling_of_a_denied_flag_is_denied_too() -> None:
    flags = parse_help(
        "--port PORT\n-m FNAME\n-c N\n-np N\n--remote, --rpc SERVERS    other machines\n", VERSION
    )
    assert "other machines" in refused(profile({"extra_args": ["--remote", "x:1"]}), flags)


def test_every_flag_of_the_real_build_that_opens_a_door_is_denied() -> None:
    said = ("-hf", "--hf-file", "--model-url", "--docker-repo", "--rpc", "--tools", "--tools-runtime")
    said += ("--mcp-servers-config", "--mcp-servers-json", "--agent", "--ssl-key-file", "--slot-save-path")
    said += ("--media-path", "--log-prompts-dir", "--models-dir", "--models-preset", "--path", "--host")
    said += ("--spec-draft-hf", "--mmproj-url", "--gpt-oss-20b-default", "--fim-qwen-14b-spec")
    for spelling in said:
        assert NEW.knows(spelling)
        assert "is not accepted" in refused(profile({"extra_args": [spelling, "x"]}))


def test_every_sampling_flag_of_the_real_build_is_denied() -> None:
    text = (HELP / "build-11669.txt").read_text()
    section = text.partition("----- sampling params -----")[2].partition("\n----- ")[0]
    sampling = parse_help(section).by_spelling
    assert len(sampling) > 40
    for spelling in (*sampling, "--predict", "--reverse-prompt", "--reasoning-format", "--rerank"):
        assert NEW.knows(spelling)
        assert "is not accepted" in refused(profile({"extra_args": [spelling, "1"]}), None)


SOME = {"threads": 2, "batch_size": 64, "n_gpu_layers": 3, "flash_attn": "on", "mlock": True, "mmap": False}
MORE = SOME | {"threads_batch": 2, "ubatch_size": 64, "split_mode": "row", "main_gpu": 0, "pooling": "mean"}
MORE |= {"cache_type_k": "q8_0", "cache_type_v": "q8_0", "chat_template_file": "/t", "tensor_split": [1, 1]}
OFFERS = {"supports_tools": True, "supports_embeddings": True, "supports_vision": True}


@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize(
    ("made", "flags"),
    [
        (profile(SOME), EARLY),
        (profile(SOME | {"mlock": False, "mmap": None}), MID),
        (profile(MORE | {"cpu_moe": True, "mmproj_filename": "p.gguf"}, {"num_gpus": 2}, **OFFERS), NEW),
        (profile(MORE | {"n_cpu_moe": 3, "mmproj_filename": "p.gguf"}, {"num_gpus": 2}, **OFFERS), None),
    ],
)
def test_what_the_sidecar_says_is_not_said_again(
    made: Profile, flags: LlamaFlags | None, on_gpu: bool
) -> None:
    """The last word would win: every flag of every line is denied, in each build's spelling."""
    files = LlamaFiles(FILES.model, Path("/m/p.gguf") if made.supports_vision else None)
    words = llama_args(made, files, flags, port=1, on_gpu=on_gpu)
    said = {word for word in words if word.startswith("-")}
    assert "--port" in said
    for word in sorted(said):
        assert "is not accepted" in refused(profile({"extra_args": [word]}), None)


blocks = st.fixed_dictionaries(
    {},
    optional={
        "ctx_size": st.integers(16, 65536),
        "parallel": st.integers(1, 64),
        "n_gpu_layers": st.integers(-1, 200),
        "threads": st.integers(1, 64),
        "batch_size": st.integers(1, 4096),
        "flash_attn": st.sampled_from(["on", "off", "auto"]),
        "cache_type_k": st.sampled_from(["f16", "q8_0"]),
        "mlock": st.booleans(),
        "mmap": st.booleans(),
        "cpu_moe": st.booleans(),
        "split_mode": st.sampled_from(["none", "layer", "row"]),
    },
)
groups = sorted({flag.spellings for flag in NEW.by_spelling.values()})


@given(blocks, st.sets(st.sampled_from(groups)), st.booleans())
def test_whatever_a_build_knows_it_is_told_nothing_else(
    block: dict[str, Any], missing: set[tuple[str, ...]], on_gpu: bool
) -> None:
    known = {name: flag for name, flag in NEW.by_spelling.items() if flag.spellings not in missing}
    flags = LlamaFlags(VERSION, known)
    made = profile(block)
    try:
        words = list(llama_args(made, FILES, flags, port=1, on_gpu=on_gpu))
    except ConfigError as error:
        assert VERSION in error.message
        return
    told = {}
    while words:
        name = words.pop(0)
        assert flags.knows(name)
        told[flags.spellings(name)[-1]] = words.pop(0) if flags.takes_value(name) else ""
    assert int(told["--ctx-size"]) == made.context * int(told["--parallel"])


mixed = [*DENIED, "--numa", "1", "--swa-full", "--lora", "--lora=1", "x"]


@given(st.lists(st.sampled_from(mixed) | st.sampled_from(mixed[-6:]), max_size=6))
def test_no_mixture_of_extra_args_smuggles_a_denied_flag(words: list[str]) -> None:
    try:
        said = llama_args(profile({"extra_args": words}), FILES, NEW, port=1, on_gpu=True)
    except ConfigError:
        return
    assert not set(words) & set(DENIED)
    assert said[len(said) - len(words) :] == tuple(words)
    switches = words.count("--swa-full")
    assert len(words) == switches + 2 * (words.count("--numa") + words.count("--lora"))
