"""GPTQ checkpoints that are made here: by `llm-sidecar quantize`, and by a first start."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from sidecar import room
from sidecar.transfer import alone
from sidecar.worker import calibration, load
from sidecar.worker.model import Model
from tests.engines import tiny
from tests.engines.conftest import config
from tests.engines.driver import Driver
from tests.fakes import hub
from tests.typed import typed

# Two of these start three processes that import torch, which takes its time on a busy machine.
pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
CLEAN = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}
# GPTQ's groups of 128 divide these sizes.
SIZES = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "head_dim": 32,
    "initializer_range": 0.08,
}
PROFILES = """
profiles:
  pair:
    backend: transformers
    model_id: pair
    gpu: {max_model_len: 128, max_batch_tokens: 64, max_concurrent_requests: 2}
    transformers: {sources: [owner/missing-GPTQ, owner/tiny], quantization: gptq, kv_tokens: 512}
"""


def command(*words: str, **environ: str) -> list[str]:
    return [sys.executable, "-m", "sidecar", *words]


def started(*words: str, **environ: str) -> tuple[int, str, str]:
    done = subprocess.run(
        command(*words), cwd=ROOT, env={**CLEAN, **environ}, capture_output=True, text=True, timeout=250
    )
    return done.returncode, done.stdout, done.stderr


def refused(*words: str, **environ: str) -> tuple[int, str]:
    """Exit code and the one line of a command that says no before anything is done."""
    code, _, said = typed(*words, **environ)
    assert said.count("\n") == 1, said
    return code, said


@pytest.fixture(scope="session")
def source(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint("llama", **SIZES)


@pytest.fixture(scope="session")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A checkpoint made by the command, and what that said."""
    out = tmp_path_factory.mktemp("made") / "tiny-4bit"
    code, said, wrong = started(
        "quantize", str(source), "--bits", "4", "--group-size", "128", "--out", str(out), DEVICE="cpu"
    )
    assert code == 0, wrong
    return out, said


def served(folder: Path | tuple[str, ...], **changes: object) -> Model:
    return load.load(
        config(Path("x"), sources=folder if isinstance(folder, tuple) else (str(folder),), **changes),
        lambda *_: None,
    )


def best_tokens(model: Model) -> list[set[str]]:
    """The twenty likeliest next tokens after each of a few prompts."""
    driver = Driver(model)
    for prompt in range(8):
        driver.begin(str(prompt), range(prompt, prompt + 12), max_tokens=1, logprobs=20)
    driver.finish()
    found = []
    for prompt in range(8):
        (scored,) = driver.outputs(str(prompt))[0].logprobs
        found.append({name for name, *_ in scored.top})
    return found


def test_the_command_says_how_far_it_is_and_how_to_serve_the_result(made: tuple[Path, str]) -> None:
    out, said = made
    assert "quantize 50% layer 1 of 2" in said
    assert f" in 4 bits: {(out / 'model.safetensors').stat().st_size / 2**20:.1f} MiB in {out}\n" in said
    assert said.endswith(f"It is served with MODEL_PATH={out}\n")


def test_the_result_holds_what_the_source_says_and_nothing_of_this_machine(
    made: tuple[Path, str], source: Path
) -> None:
    out, _ = made
    assert sorted(p.name for p in out.iterdir()) == sorted(
        {*(p.name for p in source.iterdir()), "quantize_config.json"}
    )
    written, stored = (json.loads((folder / "config.json").read_text()) for folder in (out, source))
    assert written.pop("quantization_config") == {
        "bits": 4, "group_size": 128, "desc_act": False, "sym": True, "lm_head": False, "method": "gptq",
        "format": "gptq", "quant_method": "gptq", "checkpoint_format": "gptq", "pack_dtype": "int32",
    }  # fmt: skip
    assert written == stored
    assert not any(p.name.startswith(".") for p in out.parent.iterdir())


def test_the_result_is_the_model_that_it_was_made_from(made: tuple[Path, str], source: Path) -> None:
    quantised, original = served(made[0]), served(source)
    assert dict(quantised.about)["weights"].startswith("gptq")
    shared = [len(a & b) for a, b in zip(best_tokens(quantised), best_tokens(original), strict=True)]
    # Of 259 tokens: strangers would share one or two of twenty. Random weights bear four bits badly.
    assert sum(shared) / len(shared) > 8


@pytest.fixture(scope="module")
def pair(source: Path) -> Iterator[hub.Hub]:
    """A hub with the second of two sources, which is not quantised."""
    with hub.running() as running:
        running.add("owner/tiny", {p.name: p.read_bytes() for p in source.iterdir()})
        yield running


@pytest.fixture(scope="module")
def environ(pair: hub.Hub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("first-start")
    (folder / "profiles.yaml").write_text(PROFILES)
    return {
        "HF_ENDPOINT": pair.url, "HF_HOME": str(folder / "home"), "DEVICE": "cpu", "LLM_PROFILE_NAME": "pair",
        "LLM_PROFILES_CONFIG_PATH": str(folder / "profiles.yaml"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def without_leave(environ: dict[str, str]) -> tuple[int, str, list[int]]:
    """A start with AUTO_QUANTIZE=0: its exit code, its words, the bytes of each file that it fetched."""
    code, _, said = started("warm", **environ, AUTO_QUANTIZE="0")
    return code, said, [path.stat().st_size for path in Path(environ["HF_HOME"]).rglob("blobs/*")]


@pytest.fixture(scope="module")
def first_start(environ: dict[str, str], without_leave: object) -> tuple[int, str, str]:
    return started("warm", **environ)


def test_a_first_start_without_leave_names_three_commands_and_fetches_no_weights(
    without_leave: tuple[int, str, list[int]], source: Path
) -> None:
    code, said, fetched = without_leave
    assert (code, fetched) == (78, [(source / "config.json").stat().st_size])
    for words in (
        "MODEL_ID=",
        "llm-sidecar quantize owner/tiny --out DIR",
        "LLM_PROFILE_NAME=hermes-3-8b-q4_k_m",
    ):
        assert words in said


def test_a_first_start_quantises_the_source_that_is_there(first_start: tuple[int, str, str]) -> None:
    code, said, wrong = first_start
    assert code == 0, wrong
    assert "owner/missing-GPTQ" in wrong
    assert "quantize 50% layer 1 of 2" in said


def test_a_second_start_takes_what_was_made_and_asks_nobody(
    first_start: tuple[int, str, str],
    environ: dict[str, str],
    pair: hub.Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert first_start[0] == 0
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", environ["HF_HOME"])
    asked, phases = len(pair.requests), []
    wanted = config(
        Path("x"), sources=("owner/missing-GPTQ", "owner/tiny"), quantization="gptq", auto_quantize=False
    )
    model = load.load(wanted, lambda phase, *_: phases.append(phase))
    assert len(pair.requests) == asked
    assert "quantize" not in phases
    assert f"owner--tiny@{pair.commit('owner/tiny')}-4bit-128g" in dict(model.about)["model"]
    driver = Driver(model)
    driver.begin("a", [1, 2, 3], max_tokens=4)
    driver.finish()
    assert driver.released("a").code is None


def until(condition: Callable[[], bool]) -> None:
    """A process of another makes no event that could be waited for; its folder and its end are looked for."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("whom", "code"), [("command", 143), ("child", 70)])
def test_killed_in_the_middle_nothing_is_left(whom: str, code: int, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        command("quantize", str(source), "--out", str(out), "--device", "cpu"),
        cwd=ROOT, env=CLEAN, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    ) as running:  # fmt: skip
        process = psutil.Process(running.pid)
        until(lambda: any("sidecar.worker.quantize" in child.cmdline() for child in process.children()))
        assert not out.exists()
        assert (tmp_path / ".out.partial").is_dir()
        (child,) = process.children()
        if whom == "command":
            process.send_signal(signal.SIGTERM)
        else:
            child.kill()
        _, said = running.communicate(timeout=30)
    assert running.returncode == code
    assert list(tmp_path.iterdir()) == []
    until(lambda: not child.is_running())
    if whom == "child":
        assert "could not be quantised: its process was killed" in said


def test_two_at_once_make_it_once(source: Path, made: tuple[Path, str], tmp_path: Path) -> None:
    """The second waits for the first, and finds what that has made."""
    target = tmp_path / "out"
    with alone(tmp_path / ".out.lock", lambda: None):
        waiting = subprocess.Popen(
            command("quantize", str(source), "--group-size", "32", "--out", str(target)),
            cwd=ROOT, env={**CLEAN, "DEVICE": "cpu"}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert waiting.stdout is not None
        told = waiting.stdout.readline()
        shutil.copytree(made[0], target)
    rest, _ = waiting.communicate(timeout=60)
    assert "another process is at it; waiting" in told
    assert waiting.returncode == 0
    assert "layer" not in rest


@pytest.fixture
def huge(source: Path, tmp_path: Path) -> Path:
    """Says of itself that it is larger than any machine."""
    folder = Path(shutil.copytree(source, tmp_path / "huge"))
    edit(folder, num_hidden_layers=1_000_000, hidden_size=65536, intermediate_size=65536)
    return folder


def edit(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_no_room_is_one_line_before_any_work(huge: Path, tmp_path: Path) -> None:
    code, said = refused("quantize", str(huge), "--out", str(tmp_path / "out"), DEVICE="cpu")
    assert code == 78
    assert "MiB of disk" in said
    edit(huge, num_hidden_layers=1, vocab_size=1_000, intermediate_size=1024 * 128)
    code, said = refused("quantize", str(huge), "--out", str(tmp_path / "out"), DEVICE="cpu")
    assert code == 75
    assert "MiB of main memory" in said
    assert [p.name for p in tmp_path.iterdir()] == ["huge"]


def test_a_second_source_without_room_is_refused_before_it_is_fetched(
    huge: Path, environ: dict[str, str], pair: hub.Hub, tmp_path: Path
) -> None:
    pair.add("owner/huge", {p.name: p.read_bytes() for p in huge.iterdir()})
    code, _, said = started("quantize", "owner/huge", "--out", str(tmp_path / "out"), **environ)
    assert (code, said.count("\n")) == (78, 1)
    assert "MiB of disk" in said
    assert not any("owner/huge" in line and "safetensors" in line for line in pair.requests)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 64, "SOURCE"),
        (("x", "--bits", "3"), 64, "--bits"),
        (("x", "--group-size", "100"), 64, "--group-size"),
        (("x", "--device", "tpu"), 64, "tpu"),
        (("no such/folder at all",), 78, "neither a folder nor a hub id"),
        ((str(ROOT / "sidecar/embedded/embedded-q4_0.gguf"),), 78, "is a GGUF file"),
        ((str(ROOT / "README.md"),), 78, "is a file"),
        ((str(ROOT / "sidecar/embedded/model"),), 78, "quantised already (gptq)"),
        ((str(ROOT / "sidecar"), "--out", str(ROOT / "docs")), 78, "is there already"),
    ],
)
def test_wrong_arguments_are_one_line(words: tuple[str, ...], code: int, said: str) -> None:
    found, line = refused("quantize", *words, DEVICE="cpu")
    assert found == code
    assert said in line


def test_help_says_what_it_takes() -> None:
    code, said, _ = typed("quantize", "--help")
    assert code == 0
    assert all(
        flag in said for flag in ("SOURCE", "--bits", "--group-size", "--out", "--device", "VRAM_BUDGET")
    )


def test_the_rows_go_through_the_models_template() -> None:
    tokenizer = tiny.tokenizer()
    rows = calibration.encoded(tokenizer, 8)
    assert [len(row["input_ids"]) for row in rows] == [512] * 8
    texts = [tokenizer.decode(row["input_ids"]) for row in rows]
    assert [text.startswith("<|im_start|>user\n") for text in texts] == [False] * 4 + [True] * 4
    tokenizer.chat_template = None
    assert "im_start" not in tokenizer.decode(calibration.encoded(tokenizer, 8)[7]["input_ids"])


def test_what_a_container_may_take_is_what_its_limit_leaves(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n")
    assert room.free_memory_mib(tmp_path, tmp_path / "none") == 4096
    assert room.memory_mib(tmp_path, tmp_path / "none") == 8192
    for name, text in (("max", "1073741824\n"), ("current", "536870912\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 104857600\n")
    assert room.free_memory_mib(tmp_path, tmp_path) == 512 + 100
    assert room.memory_mib(tmp_path, tmp_path) == 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert room.free_memory_mib(tmp_path, tmp_path) == 4096
    assert room.memory_mib(tmp_path, tmp_path) == 8192
