"""`--replay`: recorded readings, and what would have been done about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from watchdog.__main__ import main
from watchdog.decision import Restart
from watchdog.replay import ACCEPTED, ReplayError, parse, replay
from watchdog.state import Limits


def times(text: str, limits: Limits | None = None) -> list[float]:
    """When it would have restarted."""
    steps = replay(limits or Limits(), parse(text.splitlines()))
    return [step.time_s for step in steps if isinstance(step.decision, Restart)]


def rows(values: str, more: str = "") -> str:
    return "\n".join(f"{60 * at},GPU-0,{value}{more}" for at, value in enumerate(values.split()))


@pytest.mark.parametrize(
    ("values", "restarted"),
    [
        ("10780 10791 10803", [120.0]),
        ("10780 ? 10791 10803", [180.0]),
        ("10780 10791 9000 10803", []),
        ("10752 10752 10752", []),
        ("lost lost lost lost", []),
        ("11000 " * 8, [120.0, 420.0]),
    ],
)
def test_the_same_rules(values: str, restarted: list[float]) -> None:
    assert times(rows(values)) == restarted


def test_a_header_names_the_columns_in_any_order() -> None:
    text = "gpu,time_s,used_mib,own_mib\n" + "\n".join(f"GPU-0,{60 * at},12000,11000" for at in range(3))
    assert times(text) == [120.0]


def test_own_memory_and_phase_and_boot_count() -> None:
    assert times(rows("12000 12000 12000", ",6500")) == []
    assert times(rows("12000 12000 12000", ",,load")) == []
    boots = "\n".join(f"{60 * at},GPU-0,12000,,ready,{boot}" for at, boot in enumerate("aabbbbb"))
    assert times(boots) == [360.0]


def test_lines_of_one_time_are_one_look() -> None:
    text = "\n".join(f"{60 * at},GPU-{gpu},{11000 * gpu}" for at in range(3) for gpu in (0, 1))
    assert times(text) == [120.0]


def test_the_limit_is_the_configured_one() -> None:
    assert times(rows("900 900 900"), Limits(limit_mib=800.0)) == [120.0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0", r"line 1: 1 column; accepted: time_s,gpu,used_mib\[,own_mib\]\[,phase\]\[,boot\]"),
        ("0,GPU-0", "line 1: 2 columns"),
        ("0,GPU-0,1,2,ready,b,more", "line 1: 7 columns"),
        ("0,GPU-0,1\nx,GPU-0,1", "line 2: 'x,GPU-0,1'"),
        ("0,GPU-0,many", "line 1"),
        ("0,GPU-0,-1", "line 1"),
        ("0,GPU-0,nan", "line 1"),
        ("time_s,card,used_mib", "line 1: columns"),
        ("60,GPU-0,1\n0,GPU-0,1", "time_s goes backwards"),
    ],
)
def test_what_can_not_be_read_is_named(text: str, said: str) -> None:
    with pytest.raises(ReplayError, match=said):
        parse(text.splitlines())


def test_comments_and_blank_lines_are_skipped() -> None:
    assert len(parse(["# made by hand", "", "0,GPU-0,1"])) == 1


def test_the_help_names_the_columns(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"], {})
    assert ACCEPTED in "".join(capsys.readouterr().out.split())


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "readings.csv"
    file.write_text("\ufefftime_s,gpu,used_mib\n" + rows("10780 ? 10791 10803 9000") + "\n")
    assert main(["--replay", str(file), "--vram-budget", "10.5GiB"], {}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[1].split(None, 3)[:3] == ["0", "GPU-0", "10780"]
    assert lines[4].endswith("RESTART: 10780, 10791, 10803 MiB > 10752")
    assert lines[-1] == "1 restart"


@pytest.mark.parametrize(("text", "code"), [(None, 66), (b"0,GPU-0,x\n", 65), (b"\xff\xfe\n", 65)])
def test_a_file_that_can_not_be_used(
    tmp_path: Path, text: bytes | None, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "readings.csv"
    if text is not None:
        file.write_bytes(text)
    assert main(["--replay", str(file)], {}) == code
    assert capsys.readouterr().err.count("\n") == 1
