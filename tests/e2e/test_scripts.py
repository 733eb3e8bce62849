"""The three scripts as they are typed, against our own server and others, over real sockets.

What they are in front of runs in the tests' process where the script itself is not what is asked about.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.program import Program, free_port, program, until
from tests.fakes import nvml
from tests.fakes.engine import ScriptedEngine, loading
from tests.fakes.live import live_server
from tests.fakes.other_servers import other_servers
from tests.typed import typed

ROOT = Path(__file__).parents[2]
SIDECAR = f"{sys.executable} -m sidecar"
ENTRY = ("-m", "tests.fakes.serve_scripted")
EVERY_MS, WORDS = 20, 25
PACED = f"[say:{' '.join('w' * WORDS)}] [pace:{EVERY_MS}]"


def started(*words: str, **environ: str) -> tuple[int, str, str]:
    """A program of its own, from the repository's root."""
    done = subprocess.run(
        words, cwd=ROOT, env={"PATH": "/usr/bin:/bin", "LLM_SIDECAR": SIDECAR, **environ},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Ready, over a scripted engine."""
    with program(tmp_path_factory.mktemp("scripted"), entry=ENTRY) as running:
        until(running.ready, "ready")
        yield running


@pytest.fixture(scope="module")
def others() -> Iterator[str]:
    with other_servers() as url:
        yield url


# --- health_check.sh ------------------------------------------------------------------------------


def check(*words: str, **environ: str) -> tuple[int, str, str]:
    """What the script is in front of."""
    return typed("check", *words, **environ)


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/"])
def test_ours_is_ready_under_either_address(ours: Program, tail: str) -> None:
    assert check(ours.url + tail) == (0, f"{ours.url}: ready, serves scripted on cpu\n", "")


def test_the_script_says_what_the_command_does(ours: Program, others: str) -> None:
    for url, environ in ((ours.url, {}), (f"{others}/llama", {}), (f"{others}/key", {"API_KEY": "right"})):
        assert started("scripts/health_check.sh", url, **environ) == check(url, **environ)


@pytest.mark.parametrize(
    ("server", "code", "said"),
    [
        ("openai", 0, "ready, serves gpt-other"),
        ("litellm", 0, "ready, serves gpt-other"),
        ("llama", 75, "not ready: Loading model"),
        ("busy", 75, "not ready: /health answers 503"),
        ("failed", 70, 'its model could not be loaded: no tensor "output.weight", says it'),
        ("key", 77, "wants a key; set API_KEY"),
        ("html", 76, "somebody answers, but not with OpenAI's API: /v1/models is no list of models (200)"),
    ],
)
def test_of_others(others: str, server: str, code: int, said: str) -> None:
    url = f"{others}/{server}"
    assert check(url) == (code, f"{url}: {said}\n", "")


def test_ours_while_it_loads() -> None:
    with live_server(ScriptedEngine(state=loading())) as live:
        line = f"{live.url}: not ready: Model or tokenizer not loaded. (phase: load)\n"
        assert check(live.url) == (75, line, "")
        live.engine.set_state()
        assert check(live.url) == (0, f"{live.url}: ready, serves scripted on cpu\n", "")


def test_nobody_is_there() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    said = f"{url}: nobody answers: connection refused; is it started, and is this its port?\n"
    assert check(url) == (69, said, "")


def test_a_key_is_taken_from_the_environment(others: str) -> None:
    url = f"{others}/key"
    assert check(url, API_KEY="right") == (0, f"{url}: ready, serves gpt-other\n", "")
    assert check(url, API_KEY="wrong") == (77, f"{url}: does not take this API_KEY\n", "")


@pytest.mark.parametrize("words", [(), ("localhost:8080",), ("ftp://x",), ("http://x", "http://y")])
def test_health_check_says_what_it_takes(words: tuple[str, ...]) -> None:
    code, said, log = started("scripts/health_check.sh", *words)
    assert (code, said) == (64, "")
    assert "http://localhost:8080" in log
    assert all(f" {number}  " in log for number in (0, 64, 69, 70, 75, 76, 77))
    assert started("scripts/health_check.sh", "--help") == (0, log, "")


# --- benchmark.py ---------------------------------------------------------------------------------


def bench(*words: str) -> tuple[int, str, str]:
    """What the script is in front of."""
    return typed("bench", *words)


def measured(*words: str) -> dict[str, object]:
    code, said, log = bench(*words, "--json")
    assert code in (0, 1), log
    return json.loads(said)  # type: ignore[no-any-return]  # of a program, told apart by the tests


def test_the_line_of_seed_001(ours: Program) -> None:
    line = f"scripts/benchmark.py --url {ours.url} --requests 20 --concurrency 4 --max-tokens 100"
    code, said, log = started(sys.executable, *line.split())
    assert (code, log.splitlines()[-1].split()[:3]) == (0, ["bench", "100%", "20/20,"])
    for words in (
        "model scripted",
        "20 complete",
        "counted by usage",
        "tokens/s",
        "first token",
        "peak VRAM",
    ):
        assert words in said


def test_the_pace_of_a_stream_is_what_is_measured(ours: Program) -> None:
    found = measured("--url", ours.url, "--requests", "6", "--concurrency", "3", "--prompt", PACED)
    assert (found["succeeded"], found["failed"], found["tokens"]) == (6, 0, 6 * WORDS)
    first, between, whole = (found[f"{name}_s"] for name in ("first_token", "inter_token", "end_to_end"))
    assert isinstance(first, dict)
    assert isinstance(between, dict)
    assert isinstance(whole, dict)
    # Timers are hardly early, a busy machine may be late, and what was late comes together.
    assert first["p50"] * 1e3 >= 0.9 * EVERY_MS
    assert whole["p50"] * 1e3 >= 0.9 * WORDS * EVERY_MS
    assert 0.5 * EVERY_MS < between["mean"] * 1e3 < 5 * EVERY_MS
    assert 0.5 * EVERY_MS < between["p50"] * 1e3 < 5 * EVERY_MS
    for spread in (first, between, whole):
        assert spread["p50"] <= spread["p90"] <= spread["p95"] <= spread["p99"] <= spread["max"]


@pytest.mark.parametrize(
    ("server", "kind"),
    [
        ("429", "429 rate_limit_exceeded"),
        ("503", "503 model_loading"),
        ("cut", "broken stream"),
        ("half", "broken stream"),
        ("error", "engine_crashed"),
        ("html", "no stream"),
    ],
)
def test_what_fails_is_counted_by_its_kind(others: str, server: str, kind: str) -> None:
    code, said, _ = bench("--url", f"{others}/{server}", "--requests", "3", "--json")
    found = json.loads(said)
    assert (code, found["succeeded"], found["failed"]) == (1, 0, 3)
    assert {name: one["count"] for name, one in found["errors"].items()} == {kind: 3}
    assert found["first_token_s"] is None


def test_nobody_there_is_a_kind_too() -> None:
    code, said, log = bench("--url", f"http://127.0.0.1:{free_port()}", "--requests", "3")
    assert code == 1
    assert "3 times connection refused" in said
    assert "Traceback" not in log


def test_a_server_without_usage_has_its_events_counted(others: str) -> None:
    found = measured("--url", f"{others}/openai/v1", "--requests", "4", "--max-tokens", "3")
    assert (found["tokens"], found["tokens_counted_by"], found["model"]) == (12, "events", "gpt-other")


def test_peak_vram_is_that_of_all_cards_where_the_server_tells(others: str) -> None:
    assert measured("--url", f"{others}/openai", "--requests", "2")["peak_vram_bytes"] == 6e9


def test_peak_vram_is_the_drivers_word_where_the_server_is_here_and_tells_nothing(
    others: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    two_cards_bytes = 2 * nvml.nvmlDeviceGetMemoryInfo(0).used
    assert measured("--url", f"{others}/litellm", "--requests", "2")["peak_vram_bytes"] == two_cards_bytes


def test_a_picture_needs_a_library_that_is_named_before_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, log = bench("--url", f"http://127.0.0.1:{free_port()}", "--plot", "out.png")
    assert (code, log.count("\n")) == (78, 1)
    assert "--plot needs matplotlib" in log
    assert "-m pip install matplotlib" in log


def test_a_picture_is_drawn_where_the_library_is(others: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "out.png"
    assert bench("--url", f"{others}/openai", "--requests", "2", "--plot", str(path))[0] == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def test_two_reports_are_compared_by_a_word_and_a_ratio(ours: Program, tmp_path: Path) -> None:
    for name, pace in (("a", 4), ("b", 40)):
        prompt = f"[say:{' '.join('w' * 10)}] [pace:{pace}]"
        report = bench("--url", ours.url, "--requests", "2", "--prompt", prompt, "--json")[1]
        (tmp_path / f"{name}.json").write_text(report)
    a, b = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    code, said, _ = bench("--compare", a, b)
    assert code == 0
    assert "times slower" in next(
        line for line in said.splitlines() if line.startswith("between tokens, p50")
    )
    backwards = json.loads(bench("--compare", b, a, "--json")[1])
    row = backwards["figures"]["between tokens, p50"]
    assert row["ratio"] > 1
    assert row["b_is"].endswith("times faster")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--url", "localhost:8080"), 64, "accepted: an address as http://127.0.0.1:8000"),
        (("--requests", "0"), 64, "accepted: a whole number from 1 to 1000000"),
        (("--compare", "nowhere.json", "a.json"), 78, "nowhere.json can not be read as JSON"),
        (("--compare", "config/llm_profiles.schema.json", "x"), 78, "is no report of this benchmark"),
        (("--plot", "out.bmp"), 78, "accepted: a file of .png, .svg, .pdf in a folder that is there"),
    ],
)
def test_what_can_not_be_used_is_one_line(words: tuple[str, ...], code: int, said: str) -> None:
    found, printed, log = bench(*words)
    assert (found, printed, log.count("\n")) == (code, "", 1)
    assert said in log


def test_where_no_sidecar_is_the_script_says_how_to_get_one(tmp_path: Path) -> None:
    folder = tmp_path / "scripts"
    folder.mkdir()
    for name in ("benchmark.py", "sidecar.sh"):
        (folder / name).write_text((ROOT / "scripts" / name).read_text())
    code, said, log = started(sys.executable, str(folder / "benchmark.py"), LLM_SIDECAR="")
    assert (code, said, log.count("\n")) == (69, "", 1)
    assert f"run `make install` in {tmp_path}\n" in log
