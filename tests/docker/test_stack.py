"""`docker compose up llm-sidecar` as the README says it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docker.stack import ROOT, SIDECAR, WATCHDOG, Stack, docker, until

EVERY = ("--profile", "*")


def rendered(*files: str, project_directory: str | None = None) -> dict[str, Any]:
    directory = ["--project-directory", project_directory] if project_directory else []
    told = docker("compose", *[p for f in files for p in ("-f", f)], *directory, *EVERY, "config")
    return project_in(told)


def project_in(told: str) -> dict[str, Any]:
    """What `config` says of the project. Fields for anchors (`x-...`) are none of it: an included file's
    are left out."""
    config = yaml.safe_load(told)
    assert isinstance(config, dict)
    return {name: value for name, value in config.items() if not name.startswith("x-")}


def test_both_spellings_are_one_project() -> None:
    assert rendered("compose.yaml") == rendered("docker/compose.yaml")


def test_both_spellings_read_one_env_file(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "docker").mkdir(parents=True)
    for name in ("compose.yaml", "docker/compose.yaml"):
        (checkout / name).write_text((ROOT / name).read_text())
    (checkout / "docker" / ".env").symlink_to("../.env")
    template = (ROOT / ".env.template").read_text()
    (checkout / ".env").write_text(template + "\nPORT=8123\nMAX_QUEUE=7\nDRAIN_SECONDS=600\n")
    configs = []
    for name in ("compose.yaml", "docker/compose.yaml"):
        done = subprocess.run(
            ["docker", "compose", "-f", name, *EVERY, "config"],
            cwd=checkout,
            capture_output=True,
            text=True,
            check=True,
        )
        configs.append(project_in(done.stdout))
    assert configs[0] == configs[1]
    sidecar = configs[0]["services"][SIDECAR]
    assert sidecar["ports"][0]["published"] == "8123"
    assert sidecar["environment"]["MAX_QUEUE"] == "7"
    assert sidecar["environment"]["PORT"] == "8000"
    assert sidecar["environment"]["PUBLISH_PORT"] == "8123"
    assert sidecar["stop_grace_period"] == "10m20s"
    assert configs[0]["services"][WATCHDOG]["environment"]["DRAIN_SECONDS"] == "600"


@pytest.mark.parametrize(
    "files",
    [
        ("compose.yaml", "docker/compose.cpu.yaml"),
        ("compose.yaml", "docker/compose.hardened.yaml"),
        ("compose.yaml", "docker/compose.hardened.yaml", "docker/compose.cpu.yaml"),
        ("docker/compose.yaml", "docker/compose.cpu.yaml"),
    ],
)
def test_overlays_render(files: tuple[str, ...]) -> None:
    services = rendered(*files)["services"]
    assert isinstance(services, dict)
    cards = json.dumps(services).count('"nvidia"')
    assert (cards == 0) == ("docker/compose.cpu.yaml" in files)


def test_it_comes_up_with_its_watchdog_and_answers(project: Stack) -> None:
    status, body = project.get("/health")
    assert (status, body["status"], body["device"]) == (200, "ok", "cpu")
    assert project.ask()[1]["generated_text"].strip() == "The capital of France is Paris."
    assert docker("inspect", "-f", "{{.State.Running}}", f"llm-sidecar-{WATCHDOG}-1").strip() == "true"


def test_the_logs_say_what_is_served(project: Stack) -> None:
    assert "Paris" in project.compose("logs", "--no-color", SIDECAR)


def test_the_image_has_no_rights_to_spare(project: Stack) -> None:
    told = json.loads(docker("inspect", SIDECAR))[0]
    assert told["Config"]["User"] == "10001:10001"
    assert told["HostConfig"]["ReadonlyRootfs"]
    assert told["HostConfig"]["CapDrop"] == ["ALL"]
    assert {p["HostIp"] for ports in told["HostConfig"]["PortBindings"].values() for p in ports} == {
        "127.0.0.1"
    }
    assert told["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    writing = docker("exec", SIDECAR, "sh", "-c", "touch /app/x 2>&1; touch /models/x && echo volume; id -u")
    assert "Read-only" in writing
    assert "volume" in writing
    assert writing.split()[-1] == "10001"


def test_the_environment_is_one_layer_and_no_secret_stays(project: Stack) -> None:
    layers = docker("history", "--no-trunc", "--format", "{{.Size}}\t{{.CreatedBy}}", "llm-sidecar:cpu")
    large = [line for line in layers.splitlines() if line.split("\t")[0].endswith("GB")]
    assert len(large) == 1
    assert "/opt/venv" in large[0]
    assert "hf_token" not in docker("inspect", "-f", "{{json .Config.Env}}", "llm-sidecar:cpu").lower()


def test_docker_calls_it_healthy_without_curl(project: Stack) -> None:
    def health() -> str:
        return docker("inspect", "-f", "{{.State.Health.Status}}", SIDECAR).strip()

    until(lambda: health() == "healthy", "healthy")
    assert subprocess.run(["docker", "exec", SIDECAR, "which", "curl"], capture_output=True).returncode != 0


def test_the_command_line_is_there(project: Stack) -> None:
    assert "ok       profile" in docker("exec", SIDECAR, "llm-sidecar", "doctor", "--port", "0")


def test_without_the_nvidia_runtime_the_plain_file_fails_as_docker_makes_it_fail(images: None) -> None:
    runtimes = docker("info", "--format", "{{json .Runtimes}}")
    if "nvidia" in runtimes:
        pytest.skip("this engine has the NVIDIA runtime")
    # The small image stands for the large one: the engine refuses before anything runs.
    done = subprocess.run(
        ["docker", "run", "--rm", "--gpus", "all", "--entrypoint", "true", "llm-sidecar-watchdog"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert "could not select device driver" in done.stderr
    doctor = subprocess.run(
        [".venv/bin/llm-sidecar", "doctor", "--port", "0"], cwd=ROOT, capture_output=True, text=True
    )
    assert "docker/compose.cpu.yaml" in doctor.stdout


@pytest.mark.parametrize(
    ("image", "setting", "words"),
    [
        ("llm-sidecar:cpu", "LLM_PROFILE_NAME=nothing", "no such profile"),
        ("llm-sidecar-watchdog", "VRAM_BUDGET=11", "VRAM_BUDGET"),
        ("llm-sidecar-watchdog", "WATCHDOG_INTERVAL=0", "WATCHDOG_INTERVAL"),
    ],
)
def test_a_start_that_can_not_succeed_does_not_spin(
    images: None, image: str, setting: str, words: str
) -> None:
    """Exit 78 after a minute, or at once when it is told to stop."""
    name = "llm-sidecar-refused"
    init = ["--init"] if "watchdog" not in image else []
    docker("run", "-d", *init, "--name", name, "-e", setting, image)
    try:
        until(lambda: "waiting 60 s" in _said(name), "the line")
        assert words in _said(name)
        assert docker("inspect", "-f", "{{.State.Running}}", name).strip() == "true"
        docker("stop", "-t", "30", name)
        assert docker("inspect", "-f", "{{.State.ExitCode}}", name).strip() == "78"
    finally:
        docker("rm", "-f", name)


def _said(name: str) -> str:
    done = subprocess.run(["docker", "logs", name], capture_output=True, text=True)
    return done.stdout + done.stderr
