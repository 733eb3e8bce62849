"""What the compose files and Dockerfiles promise, read from the files: no engine is needed."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.providers import providers
from sidecar.settings import Settings, load
from sidecar.settings_table import TABLE
from watchdog.config import Config
from watchdog.engine import RESTART_READ_MARGIN_S

ROOT = Path(__file__).parents[2]


class _Tags(yaml.SafeLoader):
    """Compose's own tags (`!reset`, `!override`) mean their value here."""


def _value(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return None


_Tags.add_multi_constructor("!", _value)


def compose(name: str) -> dict[str, Any]:
    read = yaml.load((ROOT / name).read_text(), Loader=_Tags)
    assert isinstance(read, dict)
    return read


def filled(read: Any, **environ: str) -> Any:
    """The value as compose fills it in; a variable that is blank counts as not set."""
    if isinstance(read, dict):
        return {key: filled(value, **environ) for key, value in read.items()}
    if isinstance(read, list):
        return [filled(value, **environ) for value in read]
    if not isinstance(read, str):
        return read
    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", lambda found: environ.get(found[1]) or found[2] or "", read)


PLAIN = compose("docker/compose.yaml")["services"]
# Each stands alone: a service on a network of its own.
ALONE = {
    "llamacpp": compose("docker/compose.orion.yaml")["services"]["llamacpp"],
    "llama-cpp": compose("docker/compose.llama-cpp.yaml")["services"]["llama-cpp"],
}
GPU_SERVERS = ("gpu-server-1", "gpu-server-2")
SERVING = ("llm-sidecar", *GPU_SERVERS)
FALLBACK = {
    "FALLBACK": "1",
    "FALLBACK_PER_HOUR": "5",
    "TOGETHER_API_KEY": "k",
    "TOGETHER_MODEL": "meta/llama",
    "TOGETHER_BASE_URL": "https://together.test/v1",
    "OPENAI_API_KEY": "k",
    "OPENAI_MODEL": "gpt-test",
    "OPENAI_BASE_URL": "https://openai.test/v1",
}
# How long an engine's process may take to end when it is told to.
ENGINE_END_S = 5
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docker/compose*.yaml"))


def seconds(text: str) -> int:
    """A duration as Compose reads it: its parts add up."""
    assert re.fullmatch(r"(\d+[ms])+", text)
    return sum(int(number) * {"m": 60, "s": 1}[unit] for number, unit in re.findall(r"(\d+)([ms])", text))


def test_the_root_file_only_includes() -> None:
    assert compose("compose.yaml") == {"name": "llm-sidecar", "include": ["docker/compose.yaml"]}
    assert (ROOT / "docker" / ".env").readlink() == Path("../.env")


@pytest.mark.parametrize("name", FILES)
def test_ports_are_published_to_this_machine_only(name: str) -> None:
    for service in compose(name)["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:")


@pytest.mark.parametrize("name", [*SERVING, *ALONE])
@pytest.mark.parametrize("drain_s", ["", "600", "3600"])
def test_a_stop_leaves_time_for_the_drain(name: str, drain_s: str) -> None:
    told = filled({**PLAIN, **ALONE}[name], DRAIN_SECONDS=drain_s)
    assert told["environment"]["DRAIN_SECONDS"] == drain_s
    drain = float(drain_s) if drain_s else Settings().drain_s
    # As long as the watchdog has Docker wait, and longer: what Compose allows is no shorter.
    assert seconds(told["stop_grace_period"]) > Config(drain_s=drain).stop_s > drain + ENGINE_END_S


def test_the_watchdog_knows_the_drain() -> None:
    assert filled(PLAIN["vram-watchdog"], DRAIN_SECONDS="600")["environment"]["DRAIN_SECONDS"] == "600"


def test_the_watchdog_gets_no_secret_of_the_env_file() -> None:
    """It holds the Docker socket, and has no use for any of them."""
    template = (ROOT / ".env.template").read_text()
    secret = set(re.findall(r"^# (\w*(?:KEY|TOKEN|PASSWORD))=", template, re.MULTILINE))
    assert {"API_KEY", "HF_TOKEN", "OPENAI_API_KEY"} <= secret
    environment = PLAIN["vram-watchdog"]["environment"]
    assert {name for name in secret if environment.get(name) != ""} == set()


def test_the_proxy_waits_for_the_longest_drain() -> None:
    text = (ROOT / "docker" / "haproxy.cfg").read_text()
    assert "use_backend restarts if writes restart" in text
    drain_s = next(row for row in TABLE if row.field == "drain_s").parse("3600")
    answered_s = Config(drain_s=drain_s).stop_s + RESTART_READ_MARGIN_S
    for timeout in (
        r"defaults\n(?:    .*\n)*?    timeout client (\S+)\n",
        r"backend restarts\n(?:    .*\n)*?    timeout server (\S+)\n",
    ):
        found = re.search(timeout, text)
        assert found
        assert seconds(found[1]) > answered_s


@pytest.mark.parametrize("service", [*PLAIN, *ALONE])
def test_services_have_no_rights_to_spare(service: str) -> None:
    told = {**PLAIN, **ALONE}[service]
    assert told["cap_drop"] == ["ALL"]
    assert told["read_only"] is True
    assert told["security_opt"] == ["no-new-privileges:true"]
    assert told["restart"] == "unless-stopped"
    assert told["pids_limit"] <= 1024


def test_only_the_watchdog_sees_the_docker_socket_and_not_in_the_hardened_overlay() -> None:
    with_socket = [name for name, told in PLAIN.items() if "/var/run/docker.sock" in str(told.get("volumes"))]
    assert with_socket == ["vram-watchdog", "docker-proxy"]
    assert PLAIN["docker-proxy"]["profiles"] == ["hardened"]
    hardened = compose("docker/compose.hardened.yaml")["services"]
    assert "docker.sock:" not in str(hardened["vram-watchdog"]["volumes"]).replace("docker-proxy", "")


@pytest.mark.parametrize("service", [*(name for name in PLAIN if name != "grafana"), *ALONE])
def test_what_is_built_here_is_asked_of_no_registry(service: str) -> None:
    """`never` builds what is missing; otherwise Compose tries to pull it first, and warns that it can not."""
    told = {**PLAIN, **ALONE}[service]
    assert ("build" in told, told["pull_policy"]) == (True, "never")


@pytest.mark.parametrize("name", [*SERVING, *ALONE])
def test_what_is_published_is_what_is_announced(name: str) -> None:
    port = {"gpu-server-1": "GPU_SERVER_1_PORT", "gpu-server-2": "GPU_SERVER_2_PORT"}
    port |= {"llamacpp": "LLAMACPP_HOST_PORT"}
    given = {port.get(name, "PORT"): "9000"}
    for environ in ({}, given):
        told = filled({**PLAIN, **ALONE}[name], **environ)
        assert told["ports"][0].split(":")[1] == told["environment"]["PUBLISH_PORT"]
    assert told["environment"]["PUBLISH_PORT"] == "9000"


def test_a_model_of_this_machine_is_served() -> None:
    told = filled(PLAIN["llm-sidecar"], LLM_CACHE_DIR="/srv/models", MODEL_PATH="/models/mine")
    assert "/srv/models:/models" in told["volumes"]
    assert told["environment"]["MODEL_PATH"] == "/models/mine"
    assert "models:/models" in filled(PLAIN["llm-sidecar"])["volumes"]
    assert filled(PLAIN["llm-sidecar"])["environment"]["MODEL_PATH"] == ""


def test_the_sidecar_comes_up_with_its_watchdog() -> None:
    waits = PLAIN["llm-sidecar"]["depends_on"]["vram-watchdog"]
    assert waits == {"condition": "service_started", "required": False}


def test_the_gpu_servers_come_up_by_name_alone() -> None:
    assert [PLAIN[name]["profiles"] for name in GPU_SERVERS] == [["gpu-servers", "stack"]] * 2
    assert not any(set(GPU_SERVERS) & set(told.get("depends_on", {})) for told in PLAIN.values())


def test_the_gpu_servers_have_a_card_and_ports_each() -> None:
    one, two = (filled(PLAIN[name]) for name in GPU_SERVERS)
    assert one["ports"] == ["127.0.0.1:8080:8080", "127.0.0.1:9091:9091"]
    assert two["ports"] == ["127.0.0.1:8081:8080", "127.0.0.1:9092:9091"]
    cards = [told["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for told in (one, two)]
    assert cards == [["0"], ["1"]]
    for told in (one, two):
        assert (told["environment"]["PORT"], told["environment"]["METRICS_PORT"]) == ("8080", "9091")


def test_the_gpu_servers_hand_on_what_they_are_told() -> None:
    given = {"MODEL_PATH": "/models/model.gguf", "N_GPU_LAYERS": "33", "N_CTX": "4096", "N_BATCH": "512"}
    given |= {"N_THREADS": "4"}
    for name in GPU_SERVERS:
        assert filled(PLAIN[name], **given)["environment"].items() >= given.items()
        assert filled(PLAIN[name])["environment"]["MODEL_PATH"] == ""
        assert filled(PLAIN[name])["volumes"] == ["models:/models"]
        assert filled(PLAIN[name], LLM_CACHE_DIR="/srv/models")["volumes"] == ["/srv/models:/models"]


def test_without_a_card_the_gpu_servers_serve_the_embedded_model() -> None:
    for name in GPU_SERVERS:
        told = compose("docker/compose.cpu.yaml")["services"][name]
        assert filled(told["environment"]) == {"LLM_PROFILE_NAME": "embedded-gguf", "DEVICE": "cpu"}
        assert told["build"]["target"] == "cpu"
        assert told["deploy"]["resources"]["reservations"]["devices"] == []


def test_two_env_files_make_the_service_of_a_stack() -> None:
    given = {
        "SERVICE_NAME": "orion-two",
        "SERVICE_VERSION": "0.2.0",
        "LLM_PROFILE_NAME": "deepseek-70b-gguf-atlas",
        "LLM_PROFILES_CONFIG_PATH": "/app/config/llm_profiles.yaml",
        "LLM_CACHE_DIR": "/mnt/telemetry/llm-cache",
        "LLAMACPP_HOST_PORT": "8090",
        "HF_TOKEN": "",
        "LLAMACPP_CTX_SIZE_OVERRIDE": "4096",
        "LLAMACPP_N_GPU_LAYERS_OVERRIDE": "",
        "LLAMACPP_THREADS_OVERRIDE": "",
        "LLAMACPP_PARALLEL_OVERRIDE": "",
        "LLAMACPP_BATCH_SIZE_OVERRIDE": "",
        "CUDA_VISIBLE_DEVICES_OVERRIDE": "2,3",
    }
    whole = filled(compose("docker/compose.orion.yaml"), **given)
    told = whole["services"]["llamacpp"]
    assert (whole["name"], told["container_name"], told["image"]) == (
        "orion-two",
        "orion-two",
        "orion-two:0.2.0",
    )
    assert told["ports"] == ["127.0.0.1:8090:8080"]
    assert told["volumes"] == ["/mnt/telemetry/llm-cache:/models"]
    assert told["networks"] == ["app-net"]
    outside = {"SERVICE_NAME", "SERVICE_VERSION", "LLM_CACHE_DIR", "LLAMACPP_HOST_PORT"}
    inside = {name: value for name, value in given.items() if name not in outside}
    assert told["environment"].items() >= inside.items()


@pytest.mark.parametrize("name", ALONE)
def test_a_service_that_stands_alone_is_told_how_to_serve(name: str) -> None:
    """Compose hands on what is listed, and no env file besides: what is not listed can not be set."""
    given = {
        "AUTOLOAD": "1",
        "ALLOWED_HOSTS": "llama.lan",
        "MAX_QUEUE": "8",
        "QUEUE_TIMEOUT": "120",
        "QUEUE_PATIENCE": "0",
        "LOG_FORMAT": "json",
        "LOG_PROMPTS": "1",
        **FALLBACK,
        "API_KEY": "k" * 16,
        "VRAM_BUDGET": "8GiB",
        "DRAIN_SECONDS": "60",
    }
    told = filled(ALONE[name], **given)["environment"]
    assert told.items() >= given.items()
    read = load([], told)
    assert (read.autoload, read.allowed_hosts, read.queue_timeout_s) == (True, ("llama.lan",), 120.0)
    assert [provider.name for provider in providers(read)] == ["together", "openai"]
    blank = filled(ALONE[name])["environment"]
    assert {blank[variable] for variable in given.keys() - {"VRAM_BUDGET"}} == {""}
    assert load([], blank).queue_timeout_s == Settings().queue_timeout_s
    assert providers(load([], blank)) == ()


@pytest.mark.parametrize("name", SERVING)
def test_the_fallback_is_set_in_the_env_file(name: str) -> None:
    assert [file["path"] for file in PLAIN[name]["env_file"]] == [".env"]
    told = filled(PLAIN[name], **FALLBACK)["environment"]
    said = {variable: told[variable] for variable in set(told) & set(FALLBACK)}  # goes before the file
    # Behind the stack's door the other server is asked first; alone each may have a word of its own.
    assert said == ({"FALLBACK": ""} if name in GPU_SERVERS else {})
    alone = filled(PLAIN[name], GPU_SERVER_FALLBACK="1")["environment"]
    assert alone.get("FALLBACK", "1") == "1"


def test_a_cache_of_the_hub_is_shared_by_its_volume() -> None:
    whole = filled(compose("docker/compose.llama-cpp.yaml"), CONTEXT_SIZE="32768")
    told = whole["services"]["llama-cpp"]
    assert (told["container_name"], told["ports"]) == ("llama-cpp", ["127.0.0.1:8000:8000"])
    assert told["volumes"] == ["hf-cache:/data/.huggingface"]
    assert whole["volumes"] == {"hf-cache": {"name": "hf-cache"}}
    assert told["environment"]["HF_HOME"] == "/data/.huggingface"
    assert told["environment"]["CONTEXT_SIZE"] == "32768"


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "docker").glob("*Dockerfile")))
def test_dockerfiles_build_without_a_registrys_help(name: str) -> None:
    text = (ROOT / "docker" / name).read_text()
    assert "# syntax=" not in text
    assert "curl" not in text
    assert "HEALTHCHECK" in text
    assert not re.search(r"(?m)^(ARG|ENV).*(TOKEN|KEY|SECRET)", text)
    installs = [line for line in text.splitlines() if "pip install" in line]
    assert all("--require-hashes" in text[text.index(line) :][:200] for line in installs)


def test_everything_that_is_copied_into_an_image_is_let_through() -> None:
    let = re.findall(r"(?m)^!(.+)$", (ROOT / ".dockerignore").read_text())
    for dockerfile in (ROOT / "docker").glob("*Dockerfile"):
        for line in re.findall(r"(?m)^COPY (?!--from)(.+)$", dockerfile.read_text()):
            for source in line.split()[:-1]:
                assert source.split("/")[0] in let
                assert (ROOT / source).exists()


def test_actions_are_pinned_and_nothing_is_permitted_by_default() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yaml").read_text()
    uses = re.findall(r"uses: (\S+)", text)
    assert uses
    assert all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", use) for use in uses)
    assert yaml.safe_load(text)["permissions"] == {}


def test_the_cpu_lock_has_no_cuda_in_it() -> None:
    namespace: dict[str, Any] = {"__name__": "cpu_requirements"}
    exec((ROOT / "docker" / "cpu_requirements.py").read_text(), namespace)
    lock = (ROOT / "requirements" / "runtime.txt").read_text()
    wheel = "https://example.org/torch.whl#sha256=" + "0" * 64
    made = namespace["without_cuda"](lock, wheel)
    names = set(re.findall(r"(?m)^([a-z0-9-]+)==", made))
    before = set(re.findall(r"(?m)^([a-z0-9-]+)==", lock))
    assert {n for n in before - names if not re.match(r"torch$|triton$|cuda-|nvidia-", n)} == set()
    assert "nvidia-ml-py" in names
    assert not any(n.startswith("nvidia-cu") for n in names)
    assert made.endswith(f"torch @ {wheel}\n")
    assert namespace["without_cuda"](lock, "") == lock
    with pytest.raises(ValueError, match="sha256"):
        namespace["without_cuda"](lock, "https://example.org/torch.whl")


def versions(lock: str) -> dict[str, str]:
    return dict(re.findall(r"(?m)^([a-z0-9-]+)==(\S+)", (ROOT / "requirements" / lock).read_text()))


def test_the_image_over_llama_server_has_the_tested_versions_and_no_torch() -> None:
    lock = versions("llamacpp.txt")
    assert lock.items() <= versions("runtime.txt").items()
    assert not set(lock) & {"torch", "transformers", "gptqmodel", "numpy"}


def imported(path: Path) -> set[str]:
    """The modules that the file imports, in functions too, by their first names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def test_the_image_over_llama_server_has_all_that_the_sidecar_imports() -> None:
    """The worker's own libraries are not there, since that is never started, and extras are asked for."""
    extras = {"matplotlib"}
    files = [p for p in (ROOT / "sidecar").rglob("*.py") if p.parent.name != "worker"]
    names = set().union(*map(imported, files)) - set(sys.stdlib_module_names) - {"sidecar"} - extras
    owners = packages_distributions()
    distributions = {re.sub(r"[-_.]+", "-", owners[name][0]).lower() for name in names}
    assert distributions <= set(versions("llamacpp.txt"))


def test_the_source_of_llama_server_is_pinned_and_both_targets_build_the_same() -> None:
    text = (ROOT / "docker" / "llamacpp.Dockerfile").read_text()
    sums = re.findall(r"ARG LLAMA_CPP_SHA256=([0-9a-f]{64})\n", text)
    assert len(sums) == 2
    assert len(set(sums)) == 1
    assert re.search(r"ARG LLAMA_CPP_VERSION=v\d+\.\d+\.\d+\n", text)
    assert re.findall(r"(?m)^FROM \S+ AS (\S+)$", text)[-1] == "cuda"


def test_pascal_and_blackwell_are_both_compiled_for() -> None:
    text = (ROOT / "docker" / "llamacpp.Dockerfile").read_text()
    architectures = re.search(r'ARG CUDA_ARCHITECTURES="([0-9;]+)"', text)
    assert architectures
    assert {"61", "120"} <= set(architectures[1].split(";"))
    assert re.search(r"ARG CUDA_IMAGE=nvidia/cuda:12\.[89]\.\d+-devel-", text)
    for told in (*(PLAIN[name] for name in GPU_SERVERS), *ALONE.values()):
        assert filled(told["build"]["args"]["CUDA_ARCHITECTURES"]) == architectures[1]
