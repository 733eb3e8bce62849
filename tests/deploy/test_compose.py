"""What the compose files and Dockerfiles promise, read from the files: no engine is needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.settings import Settings

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


PLAIN = compose("docker/compose.yaml")["services"]
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docker/compose*.yaml"))


def seconds(text: str) -> int:
    found = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text)
    assert found
    return int(found[1] or 0) * 60 + int(found[2] or 0)


def test_the_root_file_only_includes() -> None:
    assert compose("compose.yaml") == {"name": "llm-sidecar", "include": ["docker/compose.yaml"]}
    assert (ROOT / "docker" / ".env").readlink() == Path("../.env")


@pytest.mark.parametrize("name", FILES)
def test_ports_are_published_to_this_machine_only(name: str) -> None:
    for service in compose(name)["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:")


def test_a_stop_leaves_time_for_the_drain() -> None:
    engine_s, drain_s = 5, Settings().drain_s
    assert seconds(PLAIN["llm-sidecar"]["stop_grace_period"]) > 45 > drain_s + engine_s


@pytest.mark.parametrize("service", PLAIN)
def test_services_have_no_rights_to_spare(service: str) -> None:
    told = PLAIN[service]
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


def test_the_sidecar_comes_up_with_its_watchdog() -> None:
    waits = PLAIN["llm-sidecar"]["depends_on"]["vram-watchdog"]
    assert waits == {"condition": "service_started", "required": False}


@pytest.mark.parametrize("name", ["Dockerfile", "watchdog.Dockerfile", "socket-proxy.Dockerfile"])
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
