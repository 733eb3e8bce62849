"""What `plan` says of limits and of the command line: each value, and what set it."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise

import pytest

from sidecar import embedded
from sidecar.explain import Explanation, explain
from sidecar.explain_limits import ONE
from sidecar.fit import Fit
from sidecar.gpu import GpuLook, GpuReading, GpuUnreadable
from sidecar.planning import Target, planned, verdict
from sidecar.registry import load_registry
from sidecar.settings import DEFAULT_REGISTRY, load
from tests.engines.llama.driving import fake
from tests.typed import typed

NO_CARD = GpuUnreadable("none")
CARD = GpuReading(0, "P106-100", "GPU-0", 0, 6077 * 1024**2, None)


@pytest.fixture(autouse=True)
def _no_llama_server_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")


def explained(*argv: str, **environ: str) -> Explanation:
    return asyncio.run(explain(load(argv, environ), NO_CARD, 8192))


def limits(found: Explanation) -> dict[str, tuple[str, str]]:
    return {row.name: (row.value, row.origin) for row in found.limits}


@pytest.mark.parametrize("environ", [{}, {"N_CTX": "1000", "N_BATCH": "77", "N_THREADS": "3"}])
@pytest.mark.parametrize("seen", [NO_CARD, (CARD,)])
def test_each_value_of_the_command_line_is_in_a_row(seen: GpuLook, environ: dict[str, str]) -> None:
    for profile in load_registry(DEFAULT_REGISTRY).profiles.values():
        settings = load(["--profile", profile.name], environ)
        found = asyncio.run(explain(settings, seen, 8192))
        flags = {row.name: row for row in found.flags}
        words = found.command.words[1:] if profile.backend == "llamacpp" else ()
        values = [(flag, value) for flag, value in pairwise(words) if not value.startswith("-")]
        assert [(row.name, row.value) for row in found.flags] == values
        assert all(row.origin for row in found.flags)
        if words:
            for_all, once = (int(limits(found)[name][0].split()[0]) for name in ("context of all", ONE))
            assert flags["--ctx-size"].value == str(for_all)
            assert flags["--ctx-size"].origin == f"{for_all // once} x {once}"


def test_what_a_worker_is_told_is_in_a_row() -> None:
    found = explained("--profile", "hermes-3-8b-gptq", N_BATCH="77")
    rows = (*found.keys, *found.limits, *found.settings)
    said = {number for row in rows for number in re.findall(r"\d+", row.value)}
    (told,) = found.command.notes
    assert set(re.findall(r"(?<![\w.])\d+", told.partition("told:")[2])) <= said
    assert limits(found)["a step's prompt"] == ("77 tokens", "environment N_BATCH")


def test_what_nobody_set_is_called_a_default() -> None:
    found = explained(MODEL_PATH="/x/y.gguf")
    assert limits(found)[ONE] == ("4096 tokens", "default")
    assert limits(found)["requests at once"] == ("1", "default")
    assert limits(found)["a step's prompt"] == ("512 tokens", "default")
    assert limits(found)["layers on cards"] == ("0", "it runs on the CPU")
    found = asyncio.run(explain(load(["--profile", "stheno-q4_k_m", "--n_gpu_layers", "7"], {}), (CARD,), 1))
    assert limits(found)["layers on cards"] == ("7", "command line --n_gpu_layers")


def test_what_the_models_header_has_is_the_most() -> None:
    environ = {"MODEL_PATH": str(embedded.GGUF_Q8_0), "LLAMA_SERVER_PATH": fake()}
    for asked, origin in (({}, "4096 (default)"), ({"N_CTX": "9000"}, "9000 (environment N_CTX)")):
        code, said, _ = typed("plan", **environ, **asked)
        said = " ".join(said.split())
        assert code == 0
        assert f"{ONE} 2048 tokens the model's header, less than {origin}" in said
        assert "fits: 1 request of 2048 tokens" in said
        assert "-c 2048" in said or "--ctx-size 2048" in said


def test_an_answer_is_no_longer_than_the_context() -> None:
    said = limits(explained(CONTEXT_SIZE="64"))["answer"]
    assert said == ("64 tokens", f"{ONE}, less than default_max_tokens 1024")


def test_a_context_that_the_worker_would_refuse_is_refused() -> None:
    code, _, line = typed("plan", CONTEXT_SIZE="4096")
    assert (code, line.count("\n")) == (78, 1)
    assert "CONTEXT_SIZE is 4096" in line
    assert "at most 2048 tokens" in line


@pytest.mark.parametrize(
    ("held_to", "said"),
    [
        (Target("cuda", 12288), "fits"),
        (Target("cuda", 300), "does not fit"),
        (Target("cpu", 300, is_all=True), "on the CPU"),
        (Target("cpu", 30, is_all=True), "does not fit"),
    ],
)
def test_the_plan_is_the_verdict_whatever_is_written(held_to: Target, said: str) -> None:
    profile = load_registry(DEFAULT_REGISTRY).select("embedded-gguf")
    ((found,),) = planned([profile], [held_to], None, lambda _: None, offline=True)
    assert verdict(found, held_to, Fit("not known", "")).verdict == said
    assert ("a machine with" in getattr(found, "sentence", "")) == (said == "does not fit" and held_to.is_all)
