"""One file over the line, as far as it needs no program: giving up, and the lines of the child."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import errors, fetch, transfer
from sidecar.fetch import Fraction, Job, Told
from sidecar.llama_args import LlamaFiles
from sidecar.planning import Target
from sidecar.profiles import LlamaCpp
from tests.weights.machine import Machine, profile_of

DATA = bytes(range(256)) * 4096
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
PATHS = NAMES.map(Path)
TOLD = st.one_of(
    st.builds(Fraction, st.floats(0, 1), NAMES),
    st.builds(LlamaFiles, PATHS, st.none() | PATHS),
)


def test_what_came_stays_when_the_tries_are_used_up(machine: Machine, tmp_path: Path) -> None:
    blob = machine.hub.add("owner/model", {"m.gguf": DATA})["m.gguf"]
    url = f"{machine.hub.url}/stored/{blob.sha256}"
    part = tmp_path / "part"
    blob.cuts = [100_000, 0]
    heard: list[int] = []
    with pytest.raises(httpx2.TransportError):
        transfer.receive(url, part, len(DATA), heard.append, pauses_s=(0.0,))
    assert 0 < part.stat().st_size <= 100_000
    assert sum(heard) == part.stat().st_size
    transfer.receive(url, part, len(DATA), heard.append, pauses_s=())
    assert part.read_bytes() == DATA
    assert sum(heard) == len(DATA)


def test_a_file_that_is_shorter_than_it_was_listed_is_not_asked_for_for_ever(
    machine: Machine, tmp_path: Path
) -> None:
    blob = machine.hub.add("owner/model", {"m.gguf": DATA})["m.gguf"]
    url = f"{machine.hub.url}/stored/{blob.sha256}"
    with pytest.raises(OSError, match=r"of 2097152 bytes came|416"):
        transfer.receive(url, tmp_path / "part", 2 * len(DATA), lambda _: None, pauses_s=(0.0, 0.0))


@given(TOLD)
def test_what_is_told_survives_the_line(told: Told) -> None:
    line = fetch.encode(told)
    assert line.count("\n") == 1
    assert fetch.decode(line) == told


@pytest.mark.parametrize("code", ["weights_missing", "weights_damaged", "not_on_hub", "bad_config"])
def test_a_failure_survives_the_line(code: str) -> None:
    error = errors.revive(code, "one line")
    assert isinstance(error, errors.StartError)
    again = fetch.decode(fetch.encode(error))
    assert type(again) is type(error)
    assert str(again) == "one line"


TARGETS = st.builds(Target, st.sampled_from(["cpu", "cuda"]), st.none() | st.floats(1, 1e6))


@given(st.none() | PATHS, NAMES, st.none() | TARGETS)
def test_a_job_survives_the_line(cache_dir: Path | None, path: str, held_to: Target | None) -> None:
    block = LlamaCpp(model_path=path, sha256="0" * 64, n_gpu_layers=7)
    job = Job(profile_of(block), cache_dir, held_to)
    assert fetch.decode_job(fetch.encode_job(job)) == job


@pytest.mark.parametrize("line", ["", "{", "[]", "{}", '{"block": {"unknown": 1}}', "null", "7"])
def test_no_job_and_no_tale(line: str) -> None:
    with pytest.raises(ValueError):
        fetch.decode_job(line)
    with pytest.raises(ValueError):
        fetch.decode(line)
