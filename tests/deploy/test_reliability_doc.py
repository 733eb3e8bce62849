"""Every promise and every fault of docs/reliability.md names tests, and those exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| ([PF]\d+) \|(.*)\|$", (ROOT / "docs" / "reliability.md").read_text(), re.MULTILINE)
NUMBERS = [*range(1, 18), *range(41, 46), *range(49, 52)]


def test_no_promise_and_no_fault_is_left_out() -> None:
    wanted = [f"P{number}" for number in NUMBERS] + [f"F{number}" for number in range(1, 20)]
    assert [name for name, _ in ROWS] == wanted


def test_every_row_is_held_by_tests_that_exist() -> None:
    missing = []
    for name, row in ROWS:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        assert tests, name
        missing += [
            (name, file, test)
            for file, test in tests
            if not re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE)
        ]
    assert missing == []
