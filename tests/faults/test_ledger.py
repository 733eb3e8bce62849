"""Every request has exactly one end, and everybody's books say the same one."""

from __future__ import annotations

import os
import signal

import pytest

from tests.e2e.program import Program, until
from tests.faults import ledger
from tests.faults.conftest import Serving


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("requests", "crashes"), [(2_000, 4), pytest.param(10_000, 20, marks=pytest.mark.long)]
)
def test_no_request_is_lost(serving: Serving, requests: int, crashes: int) -> None:
    # On a slow machine the clients are seldom more than 8 and 32 together: then nothing would be full.
    with serving("--max_queue", "8", FAULTS_SCRIPT="slots=8", FAULTS_DELAY_S="0.05") as own:
        wanted = ledger.asks(requests)
        outcomes = ledger.run(own.port, wanted, lambda: _kill(own), crashes)
        until(lambda: own.active() == own.waiting() == 0, "all places free", 10)
        books = ledger.books(wanted, outcomes, own.printed(), ledger.scraped(own.port))
        print(books.kinds, books.codes)
        assert books.wrong(ledger.is_echo) == []
        assert books.kinds["lost"] == 0
        # All kinds of ends were there, so that all were looked at.
        assert books.kinds["complete"] > requests / 4
        assert {"timeout", "queue_full", "engine_crashed", "model_not_ready"} <= set(books.codes)
        assert books.kinds["left"] > requests / 100
        assert "Traceback" not in own.printed()


def _kill(own: Program) -> None:
    for child in own.children():
        os.kill(child.pid, signal.SIGKILL)
