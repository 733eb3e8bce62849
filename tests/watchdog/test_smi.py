"""Whatever nvidia-smi prints is a reading or a named Unknown: the fault table, row by row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog import smi
from watchdog.observation import Card, Unknown
from watchdog.smi import Process, needs_parts, processes, readings, with_parts

A, B = "GPU-aaaaaaaa-1111", "GPU-bbbbbbbb-2222"


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (f"{A}, 9000, 24576\n", {A: Card(9000.0, 24576.0)}),
        (f"{A}, 0, 24576\n", {A: Card(0.0, 24576.0)}),
        (f"{A}, 9000 MiB, 24576 MiB\n", {A: Card(9000.0, 24576.0)}),
        (f"\ufeff{A}, 9000, 24576\r\n", {A: Card(9000.0, 24576.0)}),
        (f"{A}, 9000, [N/A]\n", {A: Card(9000.0, None)}),
        (f"{B}, 1, 2\n{A}, 3, 4\n", {B: Card(1.0, 2.0), A: Card(3.0, 4.0)}),
        ("MIG-cccccccc-3333, 1, 2\n", {"MIG-cccccccc-3333": Card(1.0, 2.0)}),
    ],
)
def test_what_can_be_read(output: str, found: dict[str, Card]) -> None:
    assert readings(output.encode(), 0) == found


@pytest.mark.parametrize(
    ("output", "status", "cause"),
    [
        ("", 127, "not_found"),
        ("", 126, "not_executable"),
        ("", 2, "bad_query"),
        ("", 6, "no_devices"),
        ("", 9, "driver_not_loaded"),
        ("", 12, "no_library"),
        ("", 15, "off_the_bus"),
        ("", 255, "failed"),
        ("", 7, "failed"),
        ("", -9, "failed"),
        (f"{A}, 9000, 24576\n", 1, "failed"),  # a number from a failed run is no number
        ("Failed to initialize NVML: Unknown Error\n", 255, "gpu_lost"),
        ("Failed to initialize NVML: Unknown Error\n", 0, "gpu_lost"),
        ("Failed to initialize NVML: Driver/library version mismatch\n", 18, "driver_mismatch"),
        (
            "Unable to determine the device handle for GPU0000:01:00.0: Unknown Error\n",
            255,
            "off_the_bus",
        ),
        (
            "Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost. Reboot the system\n",
            15,
            "off_the_bus",
        ),
        (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
            9,
            "driver_not_loaded",
        ),
        ("No devices were found\n", 6, "no_devices"),
        ("No devices were found\n", 0, "no_devices"),
        (
            'OCI runtime exec failed: exec: "nvidia-smi": executable file not found in $PATH\n',
            127,
            "not_found",
        ),
        ("", 0, "empty"),
        ("\n \n", 0, "empty"),
        ("uuid, memory.used [MiB], memory.total [MiB]\n", 0, "garbage"),
        (f"uuid, memory.used, memory.total\n{A}, 9000, 24576\n", 0, "garbage"),
        (f"{A}, 9000\n", 0, "garbage"),
        (f"{A}, 9000, 24576, 12\n", 0, "garbage"),
        (f"{A}, 9.000, 24576\n{B}, 1", 0, "garbage"),
        (f"{A}, 9000, 24576\n{A}, 1, 24576\n", 0, "garbage"),
        ("\0\0\0\0\n", 0, "garbage"),
        ("9000, 24576\n", 0, "garbage"),
        (f"{A}, 90", 0, "garbage"),
        (f"{A}, 9000, 245", 0, "cut"),
        ("x" * 70000, 0, "too_large"),
        (f"{A}, 9000, 24576\n" * 10000, 0, "too_large"),
    ],
)
def test_what_can_not_be_read_has_a_name(output: str, status: int, cause: str) -> None:
    found = readings(output.encode(), status)
    assert isinstance(found, Unknown)
    assert found.cause == cause
    assert found.text
    assert len(found.text) < 400


@pytest.mark.parametrize(
    ("cell", "cause"),
    [
        ("[N/A]", "not_available"),
        ("N/A", "not_available"),
        ("[Not Supported]", "not_available"),
        ("[Insufficient Permissions]", "insufficient_permissions"),
        ("[Unknown Error]", "off_the_bus"),
        ("[GPU is lost]", "off_the_bus"),
        ("-1", "garbage"),
        ("1e4", "garbage"),
        ("9.000", "garbage"),
        ("٩٠٠٠", "garbage"),
        ("9000 GiB", "garbage"),
        ("", "garbage"),
        ("24577", "above_total"),
    ],
)
def test_a_card_without_a_number_is_unknown_and_the_other_is_read(cell: str, cause: str) -> None:
    found = readings(f"{A}, {cell}, 24576\n{B}, 9000, 24576\n".encode(), 0)
    assert not isinstance(found, Unknown)
    assert isinstance(found[A], Unknown)
    assert found[A].cause == cause
    assert found[B] == Card(9000.0, 24576.0)


@given(st.binary(max_size=300), st.integers(0, 255))
def test_nothing_raises_and_nothing_unreadable_is_a_number(output: bytes, status: int) -> None:
    found = readings(output, status)
    assert isinstance(found, Unknown) or all(uuid.startswith(("GPU-", "MIG-")) for uuid in found)
    processes(output, status)
    with_parts({A: Unknown("not_available", "")}, output, status)


@given(st.text(alphabet="0123456789,[]N/A GPU-\n\rMiB.", max_size=200))
def test_near_misses(output: str) -> None:
    found = readings(output.encode(), 0)
    for card in [] if isinstance(found, Unknown) else found.values():
        assert isinstance(card, Unknown) or card.total_mib is None or card.used_mib <= card.total_mib


@given(st.integers(0, 99999999))
def test_every_number_comes_through_exactly(used: int) -> None:
    assert readings(f"{A}, {used}, [N/A]\n".encode(), 0) == {A: Card(float(used), None)}


MIG = f"""<?xml version="1.0" ?>
<nvidia_smi_log>
\t<gpu id="00000000:01:00.0">
\t\t<product_name>NVIDIA A100</product_name>
\t\t<mig_mode>
\t\t\t<current_mig>Enabled</current_mig>
\t\t</mig_mode>
\t\t<mig_devices>
\t\t<mig_device>
\t\t\t<index>0</index>
\t\t\t<fb_memory_usage>
\t\t\t\t<total>4864 MiB</total>
\t\t\t\t<used>1200 MiB</used>
\t\t\t</fb_memory_usage>
\t\t</mig_device>
\t\t<mig_device>
\t\t\t<index>1</index>
\t\t\t<fb_memory_usage>
\t\t\t\t<total>4864 MiB</total>
\t\t\t\t<used>N/A</used>
\t\t\t</fb_memory_usage>
\t\t</mig_device>
\t\t</mig_devices>
\t\t<uuid>{A}</uuid>
\t</gpu>
</nvidia_smi_log>
"""


class TestMig:
    """F46: a card that MIG has split has no figure of its own."""

    whole = readings(f"{A}, [Insufficient Permissions], [Insufficient Permissions]\n".encode(), 0)

    def test_the_parts_are_asked_for(self) -> None:
        assert needs_parts(self.whole)
        assert not needs_parts({A: Card(1.0)})
        assert not needs_parts(smi.unknown("garbage"))

    def test_the_parts_take_the_cards_place(self) -> None:
        found = with_parts(self.whole, MIG.encode(), 0)
        assert found == {f"{A}/0": Card(1200.0, 4864.0), f"{A}/1": smi.unknown("not_available")}

    def test_no_parts_is_said(self) -> None:
        without = MIG.replace("mig_device>", "other>")
        assert with_parts(self.whole, without.encode(), 0) == {A: smi.unknown("mig")}

    @pytest.mark.parametrize(("output", "status"), [(b"", 0), (b"<gpu", 0), (MIG.encode(), 1)])
    def test_an_answer_that_does_not_help_changes_nothing(self, output: bytes, status: int) -> None:
        assert with_parts(self.whole, output, status) == self.whole

    def test_a_card_without_mig_stays_unknown(self) -> None:
        without = MIG.replace("Enabled", "Disabled")
        assert with_parts(self.whole, without.encode(), 0) == self.whole


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("", ()),
        (f"4711, {A}, 9000\n", (Process(4711, A, 9000.0),)),
        (f"1, {A}, 5 MiB\n2, {B}, [N/A]\n", (Process(1, A, 5.0), Process(2, B, None))),
    ],
)
def test_processes(output: str, found: tuple[Process, ...]) -> None:
    assert processes(output.encode(), 0) == found


@pytest.mark.parametrize(
    ("output", "status", "cause"),
    [
        (f"x, {A}, 5\n", 0, "garbage"),
        (f"-1, {A}, 5\n", 0, "garbage"),
        ("No running processes found\n", 0, "garbage"),
        (f"1, {A}, 5\n", 9, "driver_not_loaded"),
    ],
)
def test_processes_that_can_not_be_read(output: str, status: int, cause: str) -> None:
    found = processes(output.encode(), status)
    assert isinstance(found, Unknown)
    assert found.cause == cause
