"""The corpus of bad requests against one candidate: what a server decides, not what the engine says.

The statuses, the form of a refusal, and the checks that need nothing but the answer. All others are
tests/corpus's, over real engines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.corpus.cases import Case
from tests.corpus.wire import Answer, exchange
from tests.fakes.live import MODEL
from tools.bench.servers import Server
from tools.http_servers.cost import started

AT_ONCE = 8
WAIT_S = 40.0


@dataclass
class Verdict:
    """How many were right; of the others, how many of each kind, and one line for each."""

    cases: int
    right: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)


def judged(name: str, cases: Sequence[Case]) -> Verdict:
    """Every case once, those that wait for a deadline beside the others."""
    verdict = Verdict(len(cases))
    with started(name) as plain, started(name, "guarded") as guarded, ThreadPoolExecutor(AT_ONCE) as pool:
        ordered = sorted(cases, key=lambda case: not case.slow)
        answers = pool.map(lambda case: _sent(guarded if case.setup else plain, case), ordered)
        for case, answer in zip(ordered, answers, strict=True):
            _judge(verdict, case, answer)
    return verdict


def _sent(server: Server, case: Case) -> Answer | None:
    """None where nothing came."""
    port = int(server.url.rpartition(":")[2])
    values = {"MODEL": MODEL.id, "HOST": f"127.0.0.1:{port}", "TRIP_PORT": "9"}
    closing = any("closed" in check for check in case.checks)
    try:
        return exchange(port, case.request(values), WAIT_S, closing)
    except (OSError, ValueError):
        return None


def _judge(verdict: Verdict, case: Case, answer: Answer | None) -> None:
    fault = "no answer" if answer is None else _fault(case, answer)
    verdict.right += not fault
    if fault:
        verdict.wrong["deadlines" if case.slow else "bytes" if case.wire else "rest"] += 1
        verdict.lines.append(f"{case.name} {fault}")
    if answer is not None and answer.status >= 400 and not _is_envelope(answer):
        verdict.plain.append(case.name)


def _fault(case: Case, answer: Answer) -> str:
    if answer.status not in case.expected:
        return str(answer.status)
    for check in case.checks:
        name, _, argument = check.partition(":")
        if name in ("answer_within", "closed_within") and answer.seconds > float(argument):
            return f"after {answer.seconds:.0f} s"
        if name == "connection_closed" and not answer.closed:
            return "not closed"
        if name == "no_redirect" and "location" in answer.headers:
            return "a redirect"
    return ""


def _is_envelope(answer: Answer) -> bool:
    try:
        return bool(answer.error)
    except (ValueError, AssertionError, TypeError):
        return False
