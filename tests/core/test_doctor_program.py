"""`llm-sidecar doctor` as it is typed: without a card or Docker, with a port that is taken, with a card."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sidecar.doctor.look import facts
from sidecar.doctor.start import findings
from sidecar.settings import Settings
from tests.fakes.live import live_server
from tests.fakes.nvml_library import compiled
from tests.typed import typed

ROOT = Path(__file__).parents[2]


def as_told(said: str) -> dict[str, Mapping[str, str]]:
    """The findings of `--json` by their names."""
    return {one["name"]: one for one in json.loads(said)}


def test_it_looks_at_everything_without_a_card_and_without_docker() -> None:
    code, said, wrong = typed("doctor", "--port", "0", PATH="/nowhere")
    assert (code, wrong) == (0, "")
    for name in ("profile", "plan", "torch", "disk", "port"):
        assert re.search(rf"(?m)^ok +{name} ", said)
    assert re.search(r"(?m)^warning +driver +no NVIDIA card can be used here", said)
    assert "\n                  -> " in said


@pytest.mark.parametrize("in_container", [True, False])
def test_docker_is_not_missed_in_a_container(in_container: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = {one.name: one for one in findings(facts(Settings(port=0), in_container=in_container))}
    assert ("docker" in found) == (not in_container)
    assert "toolkit" not in found


def test_it_knows_a_sidecar_that_runs() -> None:
    with live_server() as live:
        code, said, _ = typed("doctor", "--json", "--port", live.url.rpartition(":")[2])
    assert code == 0
    assert as_told(said)["port"]["level"] == "ok"
    assert as_told(said)["port"]["text"].endswith("an LLM Sidecar runs there and serves scripted")


def test_it_names_who_else_listens() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        code, said, _ = typed("doctor", "--json", "--port", str(other.server_port))
        other.shutdown()
    found = as_told(said)["port"]
    assert (code, found["level"]) == (1, "failure")
    assert f"pid {os.getpid()}) listens there" in found["text"]
    assert "choose another with PORT" in found["fix"]


def test_a_docker_engine_that_does_not_answer_is_a_warning(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    docker.chmod(0o755)
    code, said, _ = typed("doctor", "--json", "--port", "0", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert code == 0
    assert as_told(said)["docker"]["text"].endswith("does not answer: Cannot connect to the Docker daemon")


def test_a_docker_engine_is_understood(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    told = {"ServerVersion": "28.2", "Runtimes": {"nvidia": {}}, "CgroupDriver": "cgroupfs"}
    docker.write_text(f"#!/bin/sh\necho '{json.dumps(told)}'\n")
    docker.chmod(0o755)
    found = as_told(typed("doctor", "--json", "--port", "0", PATH=f"{tmp_path}:/usr/bin:/bin")[1])
    assert [found[name]["text"] for name in ("docker", "toolkit", "cgroup")] == [
        "engine 28.2", "Docker has the NVIDIA runtime", "cgroup driver cgroupfs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "environ", "name", "words"),
    [
        (("--profile", "nobody"), {}, "profile", "nobody"),
        (("--profile", "embedded-gguf"), {"PATH": "/nowhere"}, "binary", "no llama-server on PATH"),
        (("--memory_budget", "64MiB"), {}, "plan", "does not fit"),
        (("--host", "203.0.113.7"), {}, "port", "203.0.113.7"),
    ],
)
def test_what_a_start_would_fail_of_is_a_failure(
    flags: tuple[str, ...], environ: dict[str, str], name: str, words: str
) -> None:
    code, said, _ = typed("doctor", "--json", "--port", "0", *flags, **environ)
    found = as_told(said)[name]
    assert (code, found["level"]) == (1, "failure")
    assert words in found["text"]
    assert found["fix"]


@pytest.mark.llama
def test_a_llama_server_is_asked_what_it_is() -> None:
    given = (
        {"LLAMA_SERVER_PATH": os.environ["LLAMA_SERVER_PATH"]} if "LLAMA_SERVER_PATH" in os.environ else {}
    )
    code, said, _ = typed("doctor", "--json", "--profile", "embedded-gguf", "--port", "0",
                          PATH=os.environ["PATH"], **given)  # fmt: skip
    found = as_told(said)
    assert (code, found["binary"]["level"]) == (0, "ok")
    assert re.search(r"llama-server, .*\d.*, sees ", found["binary"]["text"])
    assert "torch" not in found


# --- with a card: a stand-in for the driver's library ---------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("nvml"))


def with_card(library: Path, script: Path, *lines: str) -> tuple[int, dict[str, Mapping[str, str]]]:
    """The program, with a driver that says this."""
    script.write_text("\n".join(lines) + "\n")
    environ = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": str(library), "NVML_SCRIPT": str(script)}
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "doctor", "--json", "--port", "0"],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, as_told(done.stdout)


def test_a_card_with_room(library: Path, tmp_path: Path) -> None:
    _, found = with_card(library, tmp_path / "script", "card GPU-1 1000 12288 0 0")
    assert found["driver"]["text"] == "NVIDIA driver 580.65.06 answers, runs CUDA up to 13.2: Stand-in card"
    assert found["vram"]["level"] == "ok"
    assert found["vram"]["text"] == "card 0, Stand-in card: 10776 of 12288 MiB free"


def test_a_card_that_somebody_else_holds(library: Path, tmp_path: Path) -> None:
    script = ("card GPU-1 11600 12288 0 0", f"process 0 {os.getpid()} 11000", "process 0 4194303 -1")
    code, found = with_card(library, tmp_path / "script", *script)
    assert (code, found["vram"]["level"]) == (1, "failure")
    name = Path("/proc/self/comm").read_text().strip()
    assert f"held by {name} (11000 MiB, pid {os.getpid()})" in found["vram"]["text"]
    assert "not visible here (pid 4194303)" in found["vram"]["text"]


def test_a_driver_of_another_version_than_its_library(library: Path, tmp_path: Path) -> None:
    code, found = with_card(library, tmp_path / "script", "init 18")
    assert (code, found["driver"]["level"]) == (0, "warning")
    assert "updated while it runs" in found["driver"]["text"]
