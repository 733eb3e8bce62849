"""10,000 requests of every kind against a server whose engine is killed again and again.

Afterwards the clients' books, the server's log and its metrics have to agree, request by request.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import uvloop

from tests.faults.clients import Ask, Outcome, asked

SEED = 5
AT_ONCE = 96
PATHS = ("/v1/completions", "/v1/chat/completions", "/generate")
Right = Callable[[Ask, Outcome], bool]
Words = Callable[[str, random.Random], str]


@dataclass(frozen=True)
class Books:
    """The three accounts of the same requests."""

    asks: dict[str, Ask]
    outcomes: list[Outcome]
    requests: dict[str, list[dict[str, Any]]]
    generations: dict[str, list[dict[str, Any]]]
    counted: dict[str, int]

    @property
    def kinds(self) -> Counter[str]:
        """How many were complete, answered with a typed error, left by themselves, or lost."""
        return Counter(outcome.kind for outcome in self.outcomes)

    @property
    def codes(self) -> Counter[str]:
        """The typed errors."""
        return Counter(outcome.code for outcome in self.outcomes if outcome.kind == "error")

    def wrong(self, is_right: Right) -> list[str]:
        """Every entry in which two accounts differ; nothing is wrong when it is empty."""
        found = [problem for outcome in self.outcomes if (problem := self._wrong(outcome, is_right))]
        written = Counter(line["outcome"] for lines in self.generations.values() for line in lines)
        if dict(written) != self.counted:
            found.append(f"the metrics count {self.counted}, the log {dict(written)}")
        if len({outcome.id for outcome in self.outcomes}) != len(self.asks):
            found.append("a request without an outcome")
        return found

    def _wrong(self, outcome: Outcome, is_right: Right) -> str | None:
        answered = self.requests.get(outcome.id, [])
        generated = [line["outcome"] for line in self.generations.get(outcome.id, [])]
        if outcome.kind == "lost":
            return f"{outcome.id} was lost: {outcome.code} ({answered}, {generated})"
        if len(generated) > 1 or len(answered) > 1:
            return f"{outcome.id} was done twice: {answered}, {generated}"
        if outcome.kind == "left":
            return None
        if len(answered) != 1 or answered[0]["status"] != outcome.status:
            return f"{outcome.id} got {outcome.status}, the log says {answered}"
        wanted = ["success"] if outcome.kind == "complete" else [outcome.code]
        if generated != wanted:
            return f"{outcome.id} ended with {wanted}, the log says {generated}"
        if outcome.kind == "complete" and not is_right(self.asks[outcome.id], outcome):
            return f"{outcome.id} got the answer of another: {outcome.texts}"
        return None


def own_words(id: str, draw: random.Random) -> str:
    """A text that no other request has."""
    return " ".join(f"{id}-{word}" for word in range(draw.randint(1, 6)))


def asks(count: int, words: Words = own_words, timeout_s: float = 0.03, seed: int = SEED) -> list[Ask]:
    """Of every kind: both dialects, streamed and whole, several choices, short deadlines, early leavers."""
    draw = random.Random(seed)
    return [_ask(f"r{index}", draw, words, timeout_s) for index in range(count)]


def _ask(id: str, draw: random.Random, words: Words, timeout_s: float) -> Ask:
    path, text, kind = draw.choice(PATHS), words(id, draw), draw.random()
    body: dict[str, Any] = {"temperature": 0}
    if kind < 0.1:
        text, body = f"{text} {'long ' * 400}".strip(), {**body, "timeout": timeout_s}
    if path != "/generate":
        body |= {"stream": draw.random() < 0.5, "n": draw.choice((1, 1, 1, 2, 3))}
    named = {"messages": [{"role": "user", "content": text}]} if "chat" in path else {"prompt": text}
    leave_s = draw.uniform(0.0005, 0.05) if 0.1 <= kind < 0.2 else None
    return Ask(id, path, {**named, **body}, leave_s)


def text_of(ask: Ask) -> str:
    """What was asked."""
    body = ask.body
    return str(body["messages"][0]["content"] if "messages" in body else body["prompt"])


def is_echo(ask: Ask, outcome: Outcome) -> bool:
    """Right for an engine that echoes: an answer that went astray shows."""
    wanted = (f"{text_of(ask)} ",) * int(ask.body.get("n", 1))
    return outcome.texts == wanted


def run(
    port: int, wanted: Sequence[Ask], crash: Callable[[], None], crashes: int, pause_s: float = 0.0
) -> list[Outcome]:
    """Ask all of them, `AT_ONCE` at a time; `crash` is called that often, spread over them.

    A client that got an error asks the next one after `pause_s`.
    """
    return uvloop.run(_all(port, wanted, crash, crashes, pause_s))


async def _all(
    port: int, wanted: Sequence[Ask], crash: Callable[[], None], crashes: int, pause_s: float
) -> list[Outcome]:
    waiting = iter(wanted)
    outcomes: list[Outcome] = []
    every = max(1, len(wanted) // (crashes + 1))

    async def client() -> None:
        for ask in waiting:
            outcome = await asked(port, ask)
            outcomes.append(outcome)
            if len(outcomes) % every == 0 and len(outcomes) // every <= crashes:
                crash()
            if outcome.kind == "error":
                await asyncio.sleep(pause_s)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(client())
    return outcomes


def books(wanted: Sequence[Ask], outcomes: list[Outcome], log: str, metrics: str) -> Books:
    """All accounts, of a server that has nothing more to do and logs JSON."""
    requests: dict[str, list[dict[str, Any]]] = {}
    generations: dict[str, list[dict[str, Any]]] = {}
    for line in map(json.loads, log.splitlines()):
        if (account := {"request": requests, "generation": generations}.get(line["message"])) is not None:
            account.setdefault(line.get("request_id", ""), []).append(line)
    return Books({ask.id: ask for ask in wanted}, outcomes, requests, generations, counted(metrics))


def counted(metrics: str) -> dict[str, int]:
    """`inference_requests_total` by outcome."""
    pairs = re.findall(r'^inference_requests_total\{status="(\w+)"\} (\S+)$', metrics, re.MULTILINE)
    return {status: int(float(count)) for status, count in pairs}


def scraped(port: int) -> str:
    """The Prometheus text."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())
