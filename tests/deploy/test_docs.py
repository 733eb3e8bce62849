"""Documents that could drift from the code are held to it."""

from __future__ import annotations

import re
from pathlib import Path

from sidecar.settings_table import TABLE
from tests.deploy.named import make_targets, routes
from tools.env_template import README, TEMPLATE, template, with_tables

ROOT = Path(__file__).parents[2]


def test_the_readmes_settings_are_the_codes() -> None:
    assert README.read_text() == with_tables(README.read_text())


def test_the_template_is_the_codes() -> None:
    assert TEMPLATE.read_text() == template()


def test_the_template_names_all_that_compose_reads() -> None:
    files = "".join(path.read_text() for path in (ROOT / "docker").glob("compose*.yaml"))
    read = set(re.findall(r"\$\{([A-Z0-9_]+)", files))
    named = re.findall(r"(?m)^# (?:([A-Z0-9_]+)=|.*Also: (.*)\.$)", TEMPLATE.read_text())
    assert read <= {name for pair in named for words in pair for name in words.split(", ")}


def test_every_make_target_of_the_readme_exists() -> None:
    assert set(re.findall(r"make ([a-z-]+)", README.read_text())) <= make_targets() | {"and"}


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_every_endpoint_of_the_readme_is_served() -> None:
    served = {path.replace("{name}", "{id}") for _, path in routes()}
    section = README.read_text().partition("\n## Endpoints")[2].partition("\n## ")[0]
    named = re.findall(r"`(?:GET|POST)? ?(/[a-z0-9/{}]+)", section)
    assert len(named) > 8
    assert set(named) - served == set()


def test_every_setting_is_read_somewhere() -> None:
    code = "".join(
        path.read_text() for path in (ROOT / "sidecar").rglob("*.py") if path.name != "settings_table.py"
    )
    assert [row.field for row in TABLE if f".{row.field}" not in code and f'"{row.field}"' not in code] == []


def test_locks_name_no_index() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        assert not re.search(r"^--(index|extra|find)|https?://", lock.read_text(), re.MULTILINE)
