"""`llm-sidecar soak` as it is typed: on a server that leaks, on one that is out of memory, on its own."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.program import CLEAN, ROOT, free_port, serving, until
from tests.faults.conftest import echoing
from tests.typed import typed

LIMIT_S = 220


def command(*words: str, **environ: str) -> subprocess.Popen[str]:
    """It runs; whoever starts it waits for its end."""
    return subprocess.Popen(
        [sys.executable, "-m", "sidecar", "soak", *words],
        cwd=ROOT, env={**CLEAN, **environ}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def soaked(*words: str, **environ: str) -> tuple[int, Any, str]:
    """Exit code, the report, what was said beside it."""
    with command(*words, "--json", **environ) as process:
        said, wrong = process.communicate(timeout=LIMIT_S)
    return process.returncode, json.loads(said or "null"), wrong


def test_a_leak_and_a_request_without_memory_are_found(tmp_path: Path) -> None:
    """The fake engine keeps 100 KiB of each request, so 100 MiB of a thousand."""
    script = "slots=16 context=64 leak=100 oom-at=40"
    with echoing(tmp_path, FAULTS_SCRIPT=script) as own:
        where = ("--url", own.url, "--pid", str(own.process.pid))
        code, told, wrong = soaked(*where, "--minutes", "0.1", "--warm-up", "50")
        until(lambda: own.active() == own.waiting() == 0, "all places free", 20)
    assert (code, wrong) == (1, "")
    assert told["verdict"] == "LEAK"
    assert 50 < told["mib_per_1000_requests"]["engine"]["low"] < 200
    assert told["failed_for_memory"] == told["outcomes"]["out_of_memory"] == 1
    assert told["failures"] == [
        "the memory grows with the requests",
        "1 ended as out_of_memory: needed 12 MiB, 3 MiB are free",
    ]
    assert set(told["outcomes"]) == {"success", "cancelled", "out_of_memory"}
    assert told["requests"] >= 150
    assert told["context"] == 64
    assert told["running_mean"] > 4
    assert told["health_ms"]["asked"] > 5
    assert told["health_ms"]["failed"] == 0


def test_as_many_clients_as_are_wanted(tmp_path: Path) -> None:
    with echoing(tmp_path, FAULTS_SCRIPT="slots=16 context=64 pace=2") as own:
        code, told, wrong = soaked("--url", own.url, "--minutes", "0.05", "--clients", "3")
    assert (code, wrong) == (0, "")
    assert 0 < told["running_mean"] <= 3
    assert told["waiting_mean"] < 1


def test_it_ends_at_a_signal_and_reports_what_there_is(tmp_path: Path) -> None:
    with echoing(tmp_path) as own, command("--url", own.url, "--minutes", "60") as process:
        until(lambda: own.active() > 0, "the load is on", 20)
        until(lambda: own.get("/readyz")[0] == 200, "it answers", 20)
        process.send_signal(signal.SIGINT)
        said, wrong = process.communicate(timeout=LIMIT_S)
    assert wrong == ""
    assert "not seen: no process id is known (--pid)" in said
    assert "TOO SHORT TO SAY" in said


def test_where_nobody_answers_it_is_one_line() -> None:
    code, said, wrong = typed("soak", "--url", f"http://127.0.0.1:{free_port()}")
    assert (code, said, wrong.count("\n")) == (69, "", 1)
    assert "does not answer as a sidecar" in wrong


def test_a_sidecar_that_does_not_start_is_told_in_its_own_words(tmp_path: Path) -> None:
    code, said, wrong = typed("soak", MODEL_PATH=str(tmp_path / "no.gguf"))
    assert (code, said, wrong.count("\n")) == (69, "", 1)
    assert "ended with exit code" in wrong


@pytest.mark.llama
def test_the_embedded_model_under_the_worst_load() -> None:
    """The high-water mark only: half a minute is too short for a slope."""
    code, told, wrong = soaked(
        "--minutes", "0.08", "--context_size", "256", "--memory_budget", "512MiB", **serving("embedded-gguf")
    )
    assert (code, wrong, told["failures"]) == (0, "", [])
    assert told["never_above_budget"] is True
    assert 20 < told["high_water_mib"] <= told["budget_mib"] == 512
    assert told["outcomes"]["success"] > 0
    assert set(told["outcomes"]) <= {"success", "cancelled"}
    assert (told["context"], told["slots"], told["failed_for_memory"]) == (256, 16, 0)
    assert not _left_over()


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("profile", ["embedded", pytest.param("embedded-gguf", marks=pytest.mark.llama)])
def test_a_minute_of_the_worst_load(profile: str) -> None:
    code, told, _ = soaked(
        "--minutes", "1", "--context_size", "256", "--memory_budget", "4GiB", **serving(profile)
    )
    assert (code, told["failures"]) == (0, [])
    assert told["never_above_budget"] is True
    assert told["failed_for_memory"] == 0


def _left_over() -> list[str]:
    """Sidecars of a soak that still run below us."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(" ".join(process.cmdline()))
    return [line for line in found if "-m sidecar serve" in line]
