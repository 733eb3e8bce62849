"""Every way to set something, and every way to get it wrong: one line, exit 78, nothing restarted."""

from __future__ import annotations

import re
import shlex

import pytest

from watchdog.__main__ import main
from watchdog.config import Config, ConfigError, default_of, env_rows, load, readme_table
from watchdog.config_table import TABLE, size_mib
from watchdog.state import Limits


def test_nothing_is_all_defaults() -> None:
    found = load({}, {})
    assert found == Config()
    assert (found.interval_s, found.strikes, found.limit_mib) == (60, 3, 10752)
    assert Config().limits() == Limits()


def test_every_field_has_one_row() -> None:
    assert [row.field for row in TABLE] == list(Config.__dataclass_fields__)
    for column in ("name", "flag"):
        values = [getattr(row, column) for row in TABLE if getattr(row, column)]
        assert len(values) == len(set(values))
    assert all(row.text.endswith(".") and row.accepts for row in TABLE)


@pytest.mark.parametrize("text", ["10.5GiB", "10.5GB", "10752MiB", "10752 MB", "10.5gib", "10.5G"])
def test_sizes(text: str) -> None:
    assert size_mib(text) == 10752


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("WATCHDOG_INTERVAL", "60", "interval_s", 60.0),
        ("WATCHDOG_INTERVAL", "90s", "interval_s", 90.0),
        ("WATCHDOG_INTERVAL", "5min", "interval_s", 300.0),
        ("WATCHDOG_PAUSE", "6h", "pause_s", 21600.0),
        ("WATCHDOG_WINDOW", " 30m ", "window_s", 1800.0),
        ("WATCHDOG_DRY_RUN", "yes", "dry_run", True),
        ("WATCHDOG_DRY_RUN", "0", "dry_run", False),
        ("WATCHDOG_STRIKES", "5", "strikes", 5),
        ("WATCHDOG_READER", "nvml", "reader", "nvml"),
        ("DOCKER_HOST", "tcp://proxy:2375", "docker_host", "tcp://proxy:2375"),
        ("VRAM_BUDGET", "", "limit_mib", 10752.0),
        ("VRAM_BUDGET", "  ", "limit_mib", 10752.0),
    ],
)
def test_the_environment(name: str, text: str, field: str, value: object) -> None:
    assert getattr(load({}, {name: text}), field) == value


def test_the_flag_wins() -> None:
    assert load({"strikes": "4"}, {"WATCHDOG_STRIKES": "5"}).strikes == 4


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("VRAM_BUDGET", "10752"),
        ("VRAM_BUDGET", "10.5"),
        ("VRAM_BUDGET", "-1GiB"),
        ("VRAM_BUDGET", "0MiB"),
        ("VRAM_BUDGET", "10,5GiB"),
        ("VRAM_BUDGET", "nanGiB"),
        ("VRAM_BUDGET", "99999999GiB"),
        ("WATCHDOG_INTERVAL", "0"),
        ("WATCHDOG_INTERVAL", "0s"),
        ("WATCHDOG_INTERVAL", "-60"),
        ("WATCHDOG_INTERVAL", "1e3"),
        ("WATCHDOG_INTERVAL", "٦٠"),
        ("WATCHDOG_INTERVAL", "2d"),
        ("WATCHDOG_STRIKES", "0"),
        ("WATCHDOG_STRIKES", "three"),
        ("WATCHDOG_SCOPE", "all"),
        ("WATCHDOG_READER", "smi"),
        ("WATCHDOG_DRY_RUN", "maybe"),
        ("WATCHDOG_MAX_RESTARTS", "0"),
        ("WATCHDOG_WINDOW", "1s"),
        ("WATCHDOG_STATUS_PORT", "0"),
        ("WATCHDOG_STATUS_PORT", "65536"),
        ("WATCHDOG_SERVICE", "a b"),
        ("COMPOSE_PROJECT_NAME", "a=b"),
        ("DOCKER_HOST", "/var/run/docker.sock"),
        ("DOCKER_HOST", "ssh://host"),
        ("DOCKER_API_VERSION", "latest"),
        ("CONTROL_SOCKET", "relative.sock"),
        ("LOG_FORMAT", "xml"),
        ("DRAIN_SECONDS", "nan"),
    ],
)
def test_a_bad_value_names_variable_value_and_what_is_accepted(
    name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([], {name: text}) == 78
    said = capsys.readouterr()
    row = next(row for row in TABLE if row.name == name)
    assert said.out == ""
    assert said.err == f"watchdog: {name}={text!r} can not be used; accepted: {row.accepts}\n"


def test_a_bad_flag_is_named_as_the_flag() -> None:
    with pytest.raises(ConfigError, match=r"^--strikes='0' can not be used"):
        load({"strikes": "0"}, {})


class TestRestartTimeout:
    """P30: grace of Compose 50 > timeout 45 > drain 30 and the engine's end."""

    def test_it_follows_the_drain(self) -> None:
        assert Config().stop_s == 45.0
        assert load({}, {"DRAIN_SECONDS": "60"}).stop_s == 75.0

    def test_it_may_be_longer_and_never_shorter(self) -> None:
        assert load({}, {"WATCHDOG_RESTART_TIMEOUT": "90"}).stop_s == 90.0
        for timeout in ("44", "30", "1"):
            with pytest.raises(ConfigError, match=r"DRAIN_SECONDS \(30s\) and 15s more"):
                load({}, {"WATCHDOG_RESTART_TIMEOUT": timeout})


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--interval"], "expected one argument"),
        (["--intervall", "5"], "unrecognized arguments"),
        (["extra"], "unrecognized arguments: extra"),
        (["--once", "--self-test"], "not allowed with"),
    ],
)
def test_misuse_of_the_command_line_is_64_and_one_line(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv, {})
    printed = capsys.readouterr().err
    assert left.value.code == 64
    assert said in printed
    assert printed.count("\n") == 1


def test_help_lists_every_variable_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"], {})
    assert left.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    for row in TABLE:
        assert not row.flag or f"--{row.flag}" in printed
        assert not row.flag or row.name in printed
    for code in (64, 65, 66, 69, 70, 71, 75, 77, 78):
        assert f" {code} " in printed


def test_the_rows_of_the_template_say_the_defaults() -> None:
    rows = env_rows()
    for row in TABLE:
        assert (f"# {row.name}=" in rows) == (row.owner == "user")
    found = dict(re.findall(r"^# ([A-Z_]+)=(.*)$", rows, re.MULTILINE))
    values = {name: shlex.split(text)[0] if text else "" for name, text in found.items()}
    assert load({}, values) == Config()


def test_the_readme_lists_all() -> None:
    table = readme_table()
    for row in TABLE:
        assert f"| `{row.name}` |" in table
        assert default_of(row) in table
