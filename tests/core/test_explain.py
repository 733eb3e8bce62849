"""`llm-sidecar profiles` and `plan`, as they are typed and as they are shown."""

from __future__ import annotations

import asyncio
import functools
import io
import os
import re
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from sidecar import embedded
from sidecar.explain import Command, Explanation, explain, machine
from sidecar.explain_text import command_lines, gib, show_plan, show_profiles
from sidecar.fit import fit
from sidecar.gpu import GpuReading, GpuUnreadable
from sidecar.plan_text import memory
from sidecar.planning import Target, Unplanned
from sidecar.registry import load_registry
from sidecar.settings import DEFAULT_REGISTRY, load
from tests.typed import typed

ROOT = Path(__file__).parents[2]
HELP = Path(__file__).parent / "llama_help"
ATLAS = Path(__file__).parent / "atlas.yaml"
NO_CARD = GpuUnreadable("none")
CARD = GpuReading(0, "P106-100", "GPU-0", 0, 6077 * 1024**2, None)


@pytest.fixture(autouse=True)
def _no_llama_server_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")


bare = functools.partial(typed, PATH="/nowhere")


def explained(*argv: str, **environ: str) -> Explanation:
    return asyncio.run(explain(load(argv, environ), NO_CARD, 8192))


def origins(found: Explanation) -> dict[str, tuple[str, str]]:
    return {row.name: (row.value, row.origin) for row in (*found.keys, *found.settings)}


def shown(found: Explanation, columns: int) -> str:
    console = Console(file=io.StringIO(), width=columns, color_system=None, highlight=False)
    show_plan(console, found, memory(Unplanned("p", "not asked here"), Target("cpu", None)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def llama_server(tmp_path: Path) -> str:
    """A program that only tells what it knows: the spellings of early 2024."""
    program = tmp_path / "llama-server"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = --help ] && exec /bin/cat {HELP / "early-2024.txt"}\necho version: 2024\n'
    )
    program.chmod(0o755)
    return str(program)


def test_every_value_says_what_set_it() -> None:
    found = explained("--profile", "stheno-q4_k_m", "--context_size", "2048", N_GPU_LAYERS="33", HOST="::1")
    said = origins(found)
    assert said["llamacpp.ctx_size"] == ("2048", "command line --context_size")
    assert said["llamacpp.n_gpu_layers"] == ("33", "environment N_GPU_LAYERS")
    assert said["gpu.max_batch_tokens"] == ("256", "profile")
    assert said["llamacpp.default_max_tokens"] == ("1024", "default")
    assert said["HOST"] == ("::1", "environment HOST")
    assert said["PORT"] == ("8000", "default")
    assert "llamacpp.threads" in found.unsaid


def test_an_override_that_says_the_same_is_still_what_set_it() -> None:
    found = explained("--profile", "stheno-q4_k_m", CONTEXT_SIZE="4096")
    assert origins(found)["gpu.max_model_len"] == ("4096", "environment CONTEXT_SIZE")


def test_a_model_in_place_of_the_profiles() -> None:
    said = origins(explained("--profile", "stheno-q4_k_m", MODEL_ID="c/d:x.gguf"))
    assert said["llamacpp.hf_filename"] == ("x.gguf", "environment MODEL_ID")
    assert said["llamacpp.model_root"] == ("/models/gguf", "profile")
    said = origins(explained(MODEL_PATH="/x/model.gguf"))
    assert said["llamacpp.model_path"] == ("/x/model.gguf", "environment MODEL_PATH")


@pytest.mark.parametrize("name", ["API_KEY", "TOGETHER_API_KEY", "OPENAI_API_KEY"])
def test_the_key_is_not_shown(name: str) -> None:
    found = explained(**{name: "very-secret"})
    assert origins(found)[name] == ("(set)", f"environment {name}")
    assert "very-secret" not in shown(found, 80)


def test_the_command_is_the_one_of_the_binary_that_is_here(llama_server: str) -> None:
    words = explained("--profile", "stheno-q4_k_m", LLAMA_SERVER_PATH=llama_server).command.words
    assert words[0] == llama_server
    assert "--n-parallel" in words


def test_what_the_binary_can_not_do_is_refused_as_at_a_start(llama_server: str) -> None:
    code, _, said = bare("plan", "qwen3-vl-30b", LLAMA_SERVER_PATH=llama_server)
    assert (code, said.count("\n")) == (78, 1)
    assert "profile qwen3-vl-30b: llamacpp.mmproj_filename needs --mmproj" in said
    assert "this llama-server (2024)" in said


def test_without_a_binary_the_line_is_shown_all_the_same() -> None:
    code, said, refused = bare("plan", "embedded-gguf")
    assert (code, refused.count("\n")) == (78, 1)  # as a start
    assert "--parallel 16" in said
    assert "each flag is shown in its newest spelling" in " ".join(said.split())
    assert "set LLAMA_SERVER_PATH" in refused
    code, _, _ = bare("plan", "embedded-gguf", "--vram", "1GiB")  # a machine of that kind, not this one
    assert code == 0
    assert "embedded-q8_0.gguf" in said
    assert "not here yet" not in said


def test_where_the_files_will_be(tmp_path: Path) -> None:
    def model(*argv: str, **environ: str) -> str:
        return explained(*argv, **environ).command.words[2]

    file = "Llama-3.1-8B-Stheno-v3.4-Q4_K_M.gguf"
    assert model("--profile", "stheno-q4_k_m") == f"/models/gguf/{file}"
    assert model("--profile", "stheno-q4_k_m", LLM_CACHE_DIR=str(tmp_path)) == f"{tmp_path}/gguf/{file}"
    in_cache = model("--profile", "qwen3-vl-30b")
    assert "/models--Qwen--Qwen3-VL-30B-A3B-Instruct-GGUF/snapshots/" in in_cache
    assert in_cache.endswith("/Qwen3VL-30B-A3B-Instruct-Q4_K_M.gguf")
    notes = " ".join(explained("--profile", "qwen3-vl-30b").command.notes)
    assert notes.count("not here yet: ") == 2


def test_the_command_can_be_pasted() -> None:
    command = Command(
        {"B": "1 2", "A": ""}, ("/a b/c", "--x", "a'b", "--y", "-1", *["--zzzzzzzzzzzz", "1"] * 6)
    )
    text = "\n".join(command_lines(command))
    assert text.count(" \\\n") == 8
    assert shlex.split(text.replace("\\\n", "")) == ["A=", "B=1 2", *command.words]
    assert command_lines(Command({}, ("a", "-m", "b"))) == ["a -m b"]


@pytest.mark.parametrize("columns", [80, 100])
def test_it_fits_the_terminal_but_for_the_command(columns: int) -> None:
    for name in load_registry(DEFAULT_REGISTRY).profiles:
        text, _, command = shown(explained("--profile", name), columns).partition("\nCommand\n")
        assert max(map(len, text.splitlines())) <= columns
        assert "…" not in text + command


def test_profiles_marks_the_active_one_and_says_what_fits() -> None:
    code, said, _ = bare("profiles", LLM_PROFILE_NAME="stheno-q4_k_m")
    assert code == 0
    lines = [line for line in said.splitlines() if line.startswith("*")]
    assert [line.split()[1] for line in lines] == ["stheno-q4_k_m"]
    for name in load_registry(DEFAULT_REGISTRY).profiles:
        assert re.search(rf"(?m)^.  {re.escape(name)} ", said)
    code, said, _ = bare("profiles", MODEL_PATH="/x/model.gguf")
    assert re.search(r"(?m)^\*  own ", said)


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"LLM_PROFILES_CONFIG_PATH": str(ATLAS)}, "no profile is chosen"),
        ({"LLM_PROFILE_NAME": "nobody"}, "'nobody': no such profile"),
        ({"MODEL_PATH": "/no/such/folder"}, "MODEL_PATH=/no/such/folder"),
    ],
)
def test_profiles_lists_them_whatever_is_chosen(environ: dict[str, str], why: str) -> None:
    code, said, _ = bare("profiles", **environ)
    assert code == 0
    assert "deepseek-70b-gguf-atlas" in said
    assert not [line for line in said.splitlines() if line.startswith("*")]
    assert f"None is marked: {why}" in " ".join(said.split())


def test_nobody_is_blamed_for_a_name_that_nobody_gave() -> None:
    code, _, line = bare("plan", LLM_PROFILES_CONFIG_PATH=str(ATLAS))
    assert (code, line.count("\n")) == (78, 1)
    assert "no profile is chosen" in line
    assert "set LLM_PROFILE_NAME" in line


def test_profiles_without_llama_server_marks_what_needs_one(llama_server: str) -> None:
    _, said, _ = bare("profiles")
    marked = {line.split()[0] for line in said.splitlines() if " †" in line}
    shipped = load_registry(DEFAULT_REGISTRY).profiles.values()
    assert marked == {profile.name for profile in shipped if profile.backend == "llamacpp"}
    assert "† llamacpp: there is no llama-server on PATH" in said
    assert "†" not in bare("profiles", LLAMA_SERVER_PATH=llama_server)[1]


def test_profiles_says_nothing_of_another_model_by_the_written_figure() -> None:
    _, said, _ = bare("profiles", LLM_PROFILE_NAME="stheno-q4_k_m", MODEL_PATH="/x/big-70b.gguf")
    (line,) = [line for line in said.splitlines() if line.startswith("*")]
    assert "stheno-q4_k_m" in line
    assert "can not start" in line
    assert "GiB" not in line


@pytest.mark.parametrize(
    ("environ", "code", "said"),
    [
        ({"MODEL_PATH": "/x/y.gguf"}, 66, "/x/y.gguf (MODEL_PATH, or the profile's model_path) is not there"),
        ({"LLM_PROFILE_NAME": "embedded-gguf", "LLAMA_SERVER_PATH": "/nope"}, 78, "LLAMA_SERVER_PATH=/nope"),
        ({"DEVICE": "cuda"}, 78, "DEVICE is cuda"),
        ({"LOAD_IN_8BIT": "1"}, 78, "8bit"),
    ],
)
def test_plan_refuses_what_a_start_refuses(
    environ: dict[str, str], code: int, said: str, llama_server: str
) -> None:
    found, shown, line = bare("plan", **{"LLAMA_SERVER_PATH": llama_server, **environ})
    assert (found, line.count("\n")) == (code, 1)
    assert said in line
    assert "Command" in shown
    assert "not here yet" not in shown


def test_a_file_that_is_cut_is_refused_as_by_check(tmp_path: Path, llama_server: str) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(embedded.GGUF_Q8_0.read_bytes()[:200_000])
    environ = {"MODEL_PATH": str(cut), "LLAMA_SERVER_PATH": llama_server}
    codes = [bare(command, **environ)[0] for command in ("plan", "check")]
    assert codes == [65, 65]
    assert re.search(r"(?m)^\*  own .* can not start ", bare("profiles", **environ)[1])


def test_profiles_on_a_card() -> None:
    settings, registry = load([], {}), load_registry(DEFAULT_REGISTRY)
    console = Console(file=io.StringIO(), width=80, color_system=None, highlight=False)
    fits = [(profile, fit(profile, settings, (CARD,), 8192)) for profile in registry.profiles.values()]
    show_profiles(console, fits, "embedded", machine(settings, (CARD,), 8192))
    assert isinstance(console.file, io.StringIO)
    said = " ".join(console.file.getvalue().split())
    assert "stheno-q4_k_m llamacpp 5.7 GiB fits 5804 of 6077 MiB" in said
    assert "stheno-q6_k llamacpp 7.2 GiB does not fit 7403 of 6077 MiB" in said
    assert said.endswith("P106-100 6077 MiB; VRAM_BUDGET 10752 MiB on each")


def test_a_profile_is_described_with_the_figure_that_profiles_prints() -> None:
    for profile in load_registry(DEFAULT_REGISTRY).profiles.values():
        assert profile.vram_mib is not None
        assert f" {gib(profile.vram_mib)} " in profile.description.replace(",", " ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", "hermes"], "nearest: hermes-3-8b"),
        (["plan", "--profiles_config", os.devnull], "no top-level `profiles:` key"),
        (["profiles", "--profiles_config", "/nope.yaml"], "there is no such file"),
        (["plan", "stheno-q4_k_m", "--load_in_8bit"], "a GGUF file is quantised already"),
        (["plan", "stheno-q4_k_m", "--model_id", "a/b"], "accepted: owner/name:file.gguf"),
    ],
)
def test_a_wrong_choice_is_one_line_and_78(words: list[str], said: str) -> None:
    code, _, line = bare(*words)
    assert (code, line.count("\n")) == (78, 1)
    assert said in line
