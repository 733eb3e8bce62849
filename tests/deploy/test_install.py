"""The set-up: what it checks first, and that it is done once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def preflight(**environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tools/preflight.py"],
        cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_this_machine_passes() -> None:
    done = preflight()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_missing_compiler_is_named_with_its_package(tmp_path: Path) -> None:
    done = preflight(PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "make install: no C compiler: install gcc (Debian, Ubuntu: apt install gcc)\n"


def test_missing_headers_are_named_with_their_package() -> None:
    """In a Python whose headers are said to be elsewhere."""
    code = (
        "import runpy, sysconfig; sysconfig.get_path = lambda name: '/nowhere';"
        "runpy.run_path('tools/preflight.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no Python headers: install python3-dev" in done.stderr


def test_an_old_python_would_be_told_so() -> None:
    """The file must at least be readable by the Pythons that it refuses."""
    source = (ROOT / "tools" / "preflight.py").read_text()
    compile(source, "preflight.py", "exec", dont_inherit=True)
    assert "match " not in source
    assert ":=" not in source


def test_a_second_start_installs_nothing() -> None:
    done = subprocess.run(
        ["make", "-n", "serve"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    assert "pip" not in done.stdout
    assert "server.py" in done.stdout


def test_the_workflow_runs_what_people_run() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text())
    steps = workflow["jobs"]["check-and-test"]["steps"]
    runs = [step["run"] for step in steps if "run" in step]
    assert {"make check", "make test"} <= set(runs)
    assert any("/health" in run for run in runs)
    assert all(re.search(r"@[0-9a-f]{40}$", step["uses"]) for step in steps if "uses" in step)


def test_without_a_llama_server_its_tests_fail_at_once_and_say_how_to_get_one() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "llama", "tests/contract/test_stops.py"],
        cwd=ROOT, env={**os.environ, "LLAMA_SERVER_PATH": "/nowhere/llama-server"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "/nowhere/llama-server: no such program" in said
    for way in ("set LLAMA_SERVER_PATH", "install", "image"):
        assert way in said
    assert "passed" not in said
