"""What the doctor thinks of facts: each case is one fact that differs from a machine where all is well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.doctor import driver as drivers
from sidecar.doctor.deadline import Asked
from sidecar.doctor.facts import (
    Binary,
    Card,
    Disk,
    Docker,
    Driver,
    Facts,
    Finding,
    Holder,
    Missing,
    Packages,
    PlanSeen,
    Port,
    Serving,
    Unknown,
    docker_seen,
)
from sidecar.doctor.ports import listening_inodes
from sidecar.doctor.start import findings
from sidecar.errors import ConfigError
from tests.fakes import hung_nvml

CARD = Card(0, "RTX 3060", free_mib=11000, total_mib=12288, capability=(8, 6))
SERVING = Serving("hermes", "transformers", 6144, "its files are here", "if there is one")
WELL = Facts(
    profile=SERVING,
    plan=PlanSeen(True, "fits: 3 requests of 6144 tokens", least_mib=7000.0, total_mib=9800.0),
    driver=Driver("580.65", (13, 2), (CARD,)),
    cards_on_bus=1,
    in_container=False,
    packages=Packages("2.15.0", (13, 2)),
    docker=Docker("28.0", ("io.containerd.runc.v2", "nvidia"), (), "cgroupfs"),
    docker_wanted=True,
    unlinked_nodes=(),
    binary=None,
    disk=Disk("/cache", 50000.0, writable=True, missing=None),
    port=Port("127.0.0.1", 8000),
)
NO_DRIVER = Unknown("NVMLError_LibraryNotFound: NVML Shared Library Not Found")
NEVER = replace(SERVING, card="never")
ALWAYS = replace(SERVING, card="always")
SYSTEMD = Docker("28.0", ("nvidia",), (), "systemd")
LLAMA = Binary("/usr/bin/llama-server", "11669", ("CUDA0: RTX 3060",))
LARGE = Missing(4, 5400.0, "owner/model")
US = Holder(42, "python3", 8000)


def about(name: str, **changed: Any) -> Finding:
    """What is said under this name once."""
    (found,) = (one for one in findings(replace(WELL, **changed)) if one.name == name)
    return found


def test_where_all_is_well_every_line_is_ok() -> None:
    found = findings(WELL)
    assert [one.name for one in found] == [
        "profile", "plan", "driver", "vram", "torch", "docker", "toolkit", "cgroup", "disk", "port",
    ]  # fmt: skip
    assert {(one.level, one.fix) for one in found} == {("ok", "")}


def driven(**changed: Any) -> Driver:
    return Driver("580.65", (13, 2), (replace(CARD, **changed),))


@pytest.mark.parametrize(
    ("name", "changed", "level", "words"),
    [
        ("profile", {"profile": Unknown("there is no profile 'x'")}, "failure", "'x'|LLM_PROFILE_NAME"),
        ("plan", {"plan": PlanSeen(False, "does not fit: weights alone are 8661 MiB")}, "failure",
         "8661 MiB|llm-sidecar plan hermes"),
        ("plan", {"plan": Unknown("the hub did not answer within 20 s")}, "warning", "20 s|plan hermes"),
        # the driver, and what NVML calls its troubles
        ("driver", {}, "ok", "580.65|CUDA up to 13.2|RTX 3060"),
        ("driver", {"driver": NO_DRIVER, "cards_on_bus": 0}, "warning", "none in this machine|CPU is used"),
        ("driver", {"driver": NO_DRIVER}, "warning", "1 on the bus|install NVIDIA's driver"),
        ("driver", {"driver": NO_DRIVER, "profile": NEVER}, "ok", "no NVIDIA card is used"),
        ("driver", {"driver": NO_DRIVER, "profile": ALWAYS}, "failure", "install NVIDIA's driver"),
        ("driver", {"driver": Driver("580", None, ())}, "warning", "lists no card"),
        ("driver", {"driver": NO_DRIVER, "in_container": True}, "warning", "given none|compose.yaml"),
        ("driver", {"driver": Unknown("NVMLError_Unknown: Unknown Error"), "in_container": True}, "warning",
         "daemon-reload|create-dev-char-symlinks|cgroupfs|restart the container"),
        ("driver", {"driver": Unknown("NVMLError_LibRmVersionMismatch: x")}, "warning", "updated|restart"),
        ("driver", {"driver": Unknown("NVMLError_GpuIsLost: x")}, "warning", "off the bus|Xid"),
        ("driver", {"driver": Unknown("NVMLError_NoPermission: x")}, "warning", "/dev/nvidia"),
        ("driver", {"driver": Unknown("NVMLError_DriverNotLoaded: x")}, "warning", "modprobe nvidia"),
        ("driver", {"driver": Unknown("the driver has not answered for 20 s")}, "warning", "hangs|20 s"),
        # what is free, and who has the rest
        ("vram", {}, "ok", "11000 of 12288 MiB free"),
        ("vram", {"driver": driven(free_mib=9000)}, "warning", "9000 of 12288|the plan takes 9800 MiB"),
        ("vram", {"driver": driven(free_mib=3000, holders=(US, Holder(7, "", None)))}, "failure",
         "a start takes 7000 MiB|python3 (8000 MiB, pid 42)|not visible here (pid 7)|end what else"),
        ("vram", {"driver": driven(holders=tuple(Holder(i, "p", 1) for i in range(9)))}, "ok", "and 5 more"),
        ("vram", {"driver": driven(free_mib=3000, holders=None)}, "failure", "does not say here who"),
        ("vram", {"driver": driven(free_mib=3000), "profile": NEVER}, "ok", "not used by this profile"),
        ("vram", {"driver": driven(free_mib=3000, used=False)}, "ok", "not used by this profile"),
        ("vram", {"driver": driven(free_mib=3000), "plan": Unknown("no hub")}, "ok", "3000 of 12288"),
        ("vram", {"driver": driven(free_mib=3000), "port": Port("h", 1, "taken", "hermes")}, "ok",
         "LLM Sidecar that runs here"),
        # torch against the driver and the card
        ("torch", {}, "ok", "torch 2.15.0, for CUDA 13.2"),
        ("torch", {"packages": Packages("2.15.0", None)}, "warning", "build for the CPU: the card is not"),
        ("torch", {"packages": Packages("2.15.0", None), "profile": ALWAYS}, "failure", "not used"),
        ("torch", {"packages": Packages("2.15.0", None), "driver": NO_DRIVER}, "ok", "build for the CPU"),
        ("torch", {"driver": replace(driven(), cuda=(12, 4))}, "warning", "up to 12.4|driver of 580"),
        ("torch", {"driver": replace(driven(), cuda=(13, 0))}, "ok", "CUDA 13.2"),
        ("torch", {"driver": driven(capability=(6, 1))}, "failure", "capability 6.1|begin at 7.5"),
        ("torch", {"driver": driven(capability=(6, 1)), "profile": NEVER}, "ok", "CUDA 13.2"),
        ("torch", {"packages": Packages(absent=("torch", "gptqmodel"))}, "failure",
         "torch, gptqmodel|make install"),
        # Docker, the toolkit, and the daemon-reload trap
        ("docker", {"docker": None}, "warning", "no docker command|make serve"),
        ("docker", {"docker": Unknown("permission denied")}, "warning", "permission denied|make serve"),
        ("toolkit", {"docker": Docker("28.0", ("runc",))}, "warning", "nvidia-ctk runtime configure"),
        ("toolkit", {"docker": Docker("28.0", ("runc",)), "driver": NO_DRIVER, "cards_on_bus": 0}, "warning",
         "compose.cpu.yaml"),
        ("toolkit", {"docker": Docker("28.0", ("runc",), ("nvidia.com/gpu=0",))}, "ok", "nvidia.com/gpu=0"),
        ("cgroup", {"docker": SYSTEMD}, "ok", "leads to every node"),
        ("cgroup", {"docker": SYSTEMD, "unlinked_nodes": ("nvidia0", "nvidiactl")}, "warning",
         "daemon-reload|nvidia0, nvidiactl|create-dev-char-symlinks|CDI|native.cgroupdriver=cgroupfs"),
        ("cgroup", {"docker": SYSTEMD, "unlinked_nodes": None}, "warning", "daemon-reload|of its machine"),
        ("cgroup", {"docker": SYSTEMD, "driver": NO_DRIVER, "unlinked_nodes": ("nvidia0",)}, "ok", "to lose"),
        # the program, the disk, the port
        ("binary", {"binary": LLAMA}, "ok", "/usr/bin/llama-server, 11669, sees CUDA0: RTX 3060"),
        ("binary", {"binary": replace(LLAMA, devices=())}, "warning", "on the CPU|llamacpp.Dockerfile"),
        ("binary", {"binary": replace(LLAMA, devices=()), "driver": NO_DRIVER}, "ok", "sees no card"),
        ("binary", {"binary": replace(LLAMA, refused="--fa is not known")}, "failure", "--fa is"),
        ("binary", {"binary": Unknown("there is no llama-server on PATH; set LLAMA_SERVER_PATH")}, "failure",
         "no llama-server|set LLAMA_SERVER_PATH"),
        ("disk", {"disk": Disk("/c", 6000.0, True, LARGE)}, "ok", "5.86 GiB free in /c|4 files|owner/model"),
        ("disk", {"disk": Disk("/c", 5400.0, True, LARGE)}, "failure", "5.27 GiB|make room|HF_HOME"),
        ("disk", {"disk": Disk("/c", 9e9, False, replace(LARGE, files=1))}, "failure", "may not|1 file "),
        ("disk", {"disk": Disk("/c", 5.0, False, None)}, "ok", "nothing is left to fetch"),
        ("disk", {"disk": Disk("/c", 9.0, True, Unknown("no hub"))}, "warning", "not known: no hub"),
        ("disk", {"disk": Unknown("the disk did not answer within 8 s")}, "warning", "8 s|HF_HOME"),
        ("port", {"port": Port("::1", 80, "taken", "hermes")}, "ok", "runs there and serves hermes"),
        ("port", {"port": Port("::1", 80, "can not listen", None, Holder(9, "nginx", None))}, "failure",
         "can not listen; nginx (pid 9) listens there|PORT"),
        ("port", {"port": Port("::1", 80, "can not listen")}, "failure", "can not listen|end what listens"),
        ("port", {"port": Unknown("HOST='x': no address of this name")}, "failure", "no address|HOST"),
    ],
)  # fmt: skip
def test_what_is_said(name: str, changed: dict[str, Any], level: str, words: str) -> None:
    found = about(name, **changed)
    assert found.level == level
    for part in words.split("|"):
        assert part in f"{found.text}\n{found.fix}"
    assert bool(found.fix) == (level != "ok")


def test_what_a_profile_or_a_place_does_not_need_is_not_looked_for() -> None:
    found = findings(replace(WELL, packages=None, plan=None, docker=None, docker_wanted=False))
    assert [one.name for one in found] == ["profile", "driver", "vram", "disk", "port"]


def test_each_card_has_its_line() -> None:
    two = Driver("580", None, (CARD, replace(CARD, index=1, used=False)))
    said = [one.text for one in findings(replace(WELL, driver=two)) if one.name == "vram"]
    assert [text.partition(",")[0] for text in said] == ["card 0", "card 1"]


def test_what_docker_info_says() -> None:
    told = {
        "ServerVersion": "28.2", "Runtimes": {"runc": {}, "nvidia": {"path": "x"}}, "CgroupDriver": "systemd",
        "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}, {"ID": "vendor.com/other=1"}],
    }  # fmt: skip
    assert docker_seen(told) == Docker("28.2", ("runc", "nvidia"), ("nvidia.com/gpu=0",), "systemd")
    assert docker_seen({"Runtimes": None}) == Docker("unknown")
    assert docker_seen({"ServerErrors": ["permission denied"]}) == Unknown("permission denied")


def test_the_kernels_table_of_listening_sockets() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 111 1 x\n"
        "   1: 0100007F:1F40 0100007F:9999 01 00000000:00000000 00:00000000 00000000 0 0 222 1 x\n"
        "   2: 00000000:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 333 1 x\n"
    )
    assert listening_inodes(table, 8000) == {"111"}
    assert listening_inodes("", 8000) == set()


# --- looking: what hangs, what raises, what is not there ------------------------------------------


def test_a_look_that_hangs_or_raises_is_a_fact() -> None:
    def refuses() -> None:
        raise ConfigError("no such program; install one")

    hung_nvml.answers.clear()
    try:
        late = Asked("the disk", 0.05, hung_nvml.answers.wait).answer()
    finally:
        hung_nvml.answers.set()
    assert late == Unknown("the disk did not answer within 0.05 s")
    assert Asked("it", 10, refuses).answer() == Unknown("no such program; install one")
    assert Asked("it", 10, lambda: 1 // 0).answer() == Unknown(
        "it: ZeroDivisionError: integer division or modulo by zero"
    )
    assert Asked("it", 10, lambda: 7).answer() == 7


def test_a_driver_that_hangs_or_is_not_there_is_a_fact() -> None:
    hung_nvml.answers.clear()
    try:
        assert drivers.read("tests.fakes.hung_nvml", 0.05) == Unknown(
            "the driver has not answered for 0.05 s"
        )
    finally:
        hung_nvml.answers.set()
    missing = drivers.read("no_such_library")
    assert isinstance(missing, Unknown)
    assert "no_such_library" in missing.reason


def test_cards_on_the_bus_are_known_without_a_driver(tmp_path: Path) -> None:
    for name, vendor, kind in (
        ("a", "0x10de", "0x030000"),
        ("b", "0x10de", "0x040300"),
        ("c", "0x1002", "0x030000"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    (tmp_path / "d").mkdir()
    assert drivers.cards_on_bus(tmp_path) == 1
    assert drivers.cards_on_bus(tmp_path / "nowhere") == 0


def test_a_device_node_without_a_link_is_named(tmp_path: Path) -> None:
    """/dev/null stands for a node of the driver: only root makes new ones."""
    (tmp_path / "char").mkdir()
    (tmp_path / "nvidia0").symlink_to("/dev/null")
    (tmp_path / "nvidiactl").symlink_to("/dev/zero")
    (tmp_path / "nvidia-caps").mkdir()
    (tmp_path / "char" / "1:3").symlink_to("/dev/null")
    assert drivers.unlinked_nodes(tmp_path) == ("nvidiactl",)
    (tmp_path / "char" / "1:5").symlink_to("/dev/zero")
    assert drivers.unlinked_nodes(tmp_path) == ()
