"""The help texts of three ages of llama-server."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.llama_flags import Flag, LlamaFlags, parse_help

HELP = Path(__file__).parent / "llama_help"


def known(name: str) -> LlamaFlags:
    return parse_help((HELP / f"{name}.txt").read_text())


@pytest.mark.parametrize(
    ("build", "spelling", "all_of_them", "value"),
    [
        ("build-11669", "--parallel", ("-np", "--parallel"), "N"),
        ("build-11669", "-fa", ("-fa", "--flash-attn"), "[on|off|auto]"),
        ("build-11669", "--no-kv-unified", ("-kvu", "--kv-unified", "-no-kvu", "--no-kv-unified"), ""),
        ("build-11669", "--no-webui", ("--ui", "--webui", "--no-ui", "--no-webui"), ""),
        ("build-11669", "-hf", ("-hf", "-hfr", "--hf-repo"), "<user>/<model>[:quant]"),
        ("build-11669", "-ot", ("-ot", "--override-tensor"), "<tensor name pattern>=<buffer type>,..."),
        ("build-11669", "--control-vector-layer-range", ("--control-vector-layer-range",), "START END"),
        ("early-2024", "--n-parallel", ("-np", "--n-parallel"), "N"),
        ("early-2024", "--flash-attn", ("-fa", "--flash-attn"), ""),
        ("early-2024", "--tensor-split", ("-ts", "--tensor-split"), "SPLIT"),
        ("early-2024", "--n-gpu-layers", ("-ngl", "--n-gpu-layers"), "N"),
        ("mid-2024", "--gpu-layers", ("-ngl", "--gpu-layers"), "N"),
        ("mid-2024", "--mmproj", ("--mmproj",), "FILE"),
        ("mid-2024", "--port", ("--port",), "PORT"),
        ("mid-2024", "--embedding", ("--embedding",), ""),
    ],
)
def test_flags_of_three_ages(build: str, spelling: str, all_of_them: tuple[str, ...], value: str) -> None:
    flags = known(build)
    assert flags.by_spelling[spelling] == Flag(all_of_them, value)
    assert flags.takes_value(spelling) is bool(value)


def test_words_of_descriptions_are_no_flags() -> None:
    text = "-a, --aa N    use --bb for more\n              --cc is older\n                    -d too\n"
    assert set(parse_help(text).by_spelling) == {"-a", "--aa"}


def test_flags_that_are_only_listed_as_gone_are_gone() -> None:
    flags = known("build-11669")
    assert not flags.knows("--draft")
    assert flags.knows("--spec-draft-n-max")


def test_the_version_is_the_builds_own_line() -> None:
    said = "version: 0.7.0 (build 11669, commit Debian)\nbuilt with GNU 16.2.0 for Linux x86_64\n"
    assert parse_help("--port PORT  port", said).version == "0.7.0 (build 11669, commit Debian)"
    assert parse_help("--port PORT  port").version == "version unknown"


def test_another_program_has_no_flags() -> None:
    assert not parse_help("bash: llama-server: command not found").by_spelling


names = st.text(string.ascii_lowercase, min_size=2, max_size=8)
flag = st.tuples(
    st.lists(st.builds("--{}".format, names), min_size=1, max_size=3, unique=True),
    st.sampled_from(["", "N", "[on|off]", "<a>/<b>[:c]", "A B", "N0,N1,..."]),
    st.text(string.ascii_letters + " -", max_size=30),
)


@given(st.lists(flag, max_size=8, unique_by=lambda entry: entry[0][0]), st.booleans())
def test_whatever_is_written_in_that_form_is_read_back(
    entries: list[tuple[list[str], str, str]], own_line: bool
) -> None:
    lines = []
    for spellings, value, text in entries:
        head = ", ".join(spellings) + (f" {value}" if value else "")
        lines.append(f"{head}\n{'':40}{text}" if own_line else f"{head}    {text.strip()}")
    flags = parse_help("\n".join(lines))
    for spellings, value, _ in entries:
        last = [entry for entry in entries if spellings[0] in entry[0]][-1]
        if last[0] is spellings:
            assert flags.by_spelling[spellings[0]] == Flag(tuple(spellings), value)
