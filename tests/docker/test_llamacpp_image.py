"""The image over llama-server, with the server taken out of another image, and the services made of it.

The other image is made here from the llama-server at hand: LLAMA_SERVER_PATH, else the one on the PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.engines import llama_binary
from tests.docker.stack import CPU, ROOT, Stack, docker, until

ENGINE, IMAGE = "llm-sidecar-test-engine", "llm-sidecar-llamacpp:cpu"
HARDENED = (
    "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
)  # fmt: skip
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ASK = f"""
import json, urllib.request
body = json.dumps({{"messages": {QUESTION!r}, "temperature": 0, "max_tokens": 20}}).encode()
asked = urllib.request.Request("http://127.0.0.1:8089/v1/chat/completions", body)
print(urllib.request.urlopen(asked, timeout=60).read().decode())
"""


def engine_files(folder: Path) -> None:
    """What the engine's image has beyond Debian: `folder`/usr with llama-server and its libraries.

    ConfigError, with the ways to get one, when there is no llama-server here.
    """
    server = llama_binary.find(os.environ.get("LLAMA_SERVER_PATH") or None, os.environ)
    # Packages of a newer distribution than this one are unpacked beside a script that starts them.
    unpacked = Path(server).parent.parent / "root" / "usr"
    if unpacked.is_dir():
        shutil.copytree(unpacked, folder / "usr", symlinks=True)
        return
    libraries = folder / "usr" / "lib" / f"{os.uname().machine}-linux-gnu"
    script = ROOT / "docker" / "bundle-llamacpp.sh"
    subprocess.run(["sh", script, libraries, server], check=True, timeout=60)
    (folder / "usr" / "bin").mkdir()
    (libraries / "llama-server").rename(folder / "usr" / "bin" / "llama-server")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image that has llama-server, as a project that publishes one would make it."""
    folder = tmp_path_factory.mktemp("engine")
    engine_files(folder)
    base = os.environ.get("PROXY_BASE_IMAGE") or "debian:bookworm-slim"
    (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY usr/ /usr/\n")
    docker("build", "-q", "-t", ENGINE, str(folder))
    return ENGINE


@pytest.fixture(scope="module")
def ports() -> list[int]:
    """Four for both servers and one more, all free."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
    numbers = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return numbers


@pytest.fixture(scope="module")
def project(engine: str, ports: list[int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The CPU overlay with both servers' ports; the image is built, nothing is up."""
    names = [f"GPU_SERVER_{n}_{what}" for n in (1, 2) for what in ("PORT", "METRICS_PORT")]
    own = dict(zip(names, map(str, ports[:4]), strict=True))
    own |= {"ENGINE_IMAGE": engine, "COMPOSE_PROJECT_NAME": "llm-sidecar-test"}
    made = Stack(ports[0], CPU, tmp_path_factory.mktemp("project"), own)
    made.compose("build", "gpu-server-1", seconds=900)
    yield made
    made.compose("--profile", "gpu-servers", "down", "-v", "-t", "1", check=False)
    docker("image", "rm", "-f", IMAGE, ENGINE, check=False)


@pytest.fixture(scope="module")
def image(project: Stack) -> str:
    return IMAGE


@pytest.fixture(scope="module")
def servers(project: Stack) -> Stack:
    """Both up and ready."""
    project.compose("up", "-d", "--wait", "--wait-timeout", "120", "gpu-server-1", "gpu-server-2")
    return project


def test_the_servers_program_runs_without_rights_and_answers(image: str) -> None:
    name = "llm-sidecar-test-llama-server"
    model = (
        "-m",
        "sidecar/embedded/embedded-q8_0.gguf",
        "--host",
        "127.0.0.1",
        "--port",
        "8089",
        "-c",
        "512",
    )
    docker("run", "-d", "--name", name, *HARDENED, "--entrypoint", "llama-server", image, *model)
    try:
        until(lambda: "Paris" in docker("exec", name, "python3", "-c", ASK, check=False), "an answer", 60)
        assert docker("exec", name, "id", "-u").strip() == "10001"
    finally:
        docker("rm", "-f", name)


def test_the_image_has_no_torch_and_both_names_of_the_hubs_command_line(image: str) -> None:
    script = "python3 -c 'import torch' 2>&1; hf version; huggingface-cli version; command -v curl"
    said = docker("run", "--rm", *HARDENED, "--entrypoint", "sh", image, "-c", script, check=False)
    assert "No module named 'torch'" in said
    assert said.count("version: ") == 2
    assert "curl" not in said


def test_the_registry_can_be_read_inside_the_image(image: str) -> None:
    script = "grep -n 'deepseek-70b-gguf-atlas' -n /app/config/llm_profiles.yaml && echo OK"
    assert docker("run", "--rm", "--entrypoint", "sh", image, "-lc", script).endswith("OK\n")


def test_volumes_belong_to_the_images_user(image: str) -> None:
    for folder in ("/models", "/data/.huggingface"):
        mount = ("-v", f"llm-sidecar-test-owner:{folder}")
        try:
            docker("run", "--rm", *HARDENED, *mount, "--entrypoint", "touch", image, f"{folder}/x")
        finally:
            docker("volume", "rm", "-f", "llm-sidecar-test-owner")


def test_a_server_comes_up_by_its_name_and_no_other_service_with_it(servers: Stack) -> None:
    up = servers.compose("--profile", "gpu-servers", "ps", "--services").split()
    assert sorted(up) == ["gpu-server-1", "gpu-server-2"]


def test_both_servers_answer_on_their_own_ports(servers: Stack, ports: list[int]) -> None:
    for port in (ports[0], ports[2]):
        there = Stack(port, servers.files, servers.folder, servers.environ)
        status, body = there.get("/health")
        assert (status, body["status"]) == (200, "ok")
        status, body = there.post("/v1/chat/completions", messages=QUESTION, temperature=0, max_tokens=20)
        assert (status, "Paris" in json.dumps(body)) == (200, True)


def test_their_metrics_are_on_ports_of_their_own(servers: Stack, ports: list[int]) -> None:
    for port in (ports[1], ports[3]):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert b"requests_total" in answer.read()


def test_a_model_that_needs_torch_is_refused_and_the_one_that_runs_stays(servers: Stack) -> None:
    status, body = servers.post("/models/load", model="embedded")
    assert status == 503, body
    assert "needs torch, which is not installed here" in body["error"]["message"]
    status, body = servers.get("/health")
    assert (status, body["status"]) == (200, "ok")


def test_the_server_has_no_rights_to_spare(servers: Stack) -> None:
    told = json.loads(docker("inspect", servers.container("gpu-server-1")))[0]
    assert told["Config"]["User"] == "10001:10001"
    assert told["HostConfig"]["ReadonlyRootfs"]
    assert told["HostConfig"]["CapDrop"] == ["ALL"]


def test_two_env_files_bring_the_service_up(engine: str, ports: list[int], tmp_path: Path) -> None:
    """The whole command of a stack that has an env file of its own beside the service's."""
    (tmp_path / ".env").write_text(f"LLAMACPP_HOST_PORT={ports[4]}\nENGINE_IMAGE={engine}\nHF_TOKEN=\n")
    service = {"SERVICE_NAME": "llm-sidecar-test-orion", "SERVICE_VERSION": "0.1.0"}
    service |= {"LLM_PROFILE_NAME": "embedded-gguf", "LLAMACPP_CTX_SIZE_OVERRIDE": "512"}
    (tmp_path / "service.env").write_text("".join(f"{key}={value}\n" for key, value in service.items()))
    no_card = "deploy: {resources: {reservations: {devices: !reset []}}}"
    (tmp_path / "cpu.yaml").write_text(f"services: {{llamacpp: {{build: {{target: cpu}}, {no_card}}}}}")
    command = ["compose", "--env-file", str(tmp_path / ".env"), "--env-file", str(tmp_path / "service.env")]
    command += ["-f", "docker/compose.orion.yaml", "-f", str(tmp_path / "cpu.yaml")]
    there = Stack(ports[4], (), tmp_path)
    try:
        docker(*command, "up", "-d", "--build", "--wait", "--wait-timeout", "120", seconds=900)
        assert there.get("/health")[0] == 200
        name = "llm-sidecar-test-orion"
        assert docker("inspect", "-f", "{{.Config.Image}}", name).strip() == f"{name}:0.1.0"
        inside = (
            "python3",
            "-c",
            "import urllib.request as u; print(u.urlopen('http://%s:8080/health').status)",
        )
        assert docker("exec", name, *inside[:-1], inside[-1] % name).strip() == "200"
    finally:
        docker(*command, "down", "-v", "-t", "1", check=False)
        docker("image", "rm", "-f", "llm-sidecar-test-orion:0.1.0", check=False)


def test_a_stack_may_have_the_network_already(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("APP_NET_EXTERNAL=true\n")
    told = docker(
        "compose", "--env-file", str(tmp_path / ".env"), "-f", "docker/compose.orion.yaml", "config"
    )
    assert "external: true" in told.partition("\nnetworks:")[2]
