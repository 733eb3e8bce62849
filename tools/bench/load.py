"""The client: N streams at once, every token accounted for."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from sidecar.engines.llama_bodies import sampling_fields
from sidecar.generation import Sampling
from tools.bench.servers import Server

GIVE_UP_S = 300.0
LOOK_EVERY_S = 0.05
SAMPLED = {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "top_k": 0}


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `new_tokens` is what is asked for and what must come."""

    prompt: str
    prompt_tokens: int
    new_tokens: int
    sampled: bool = False


@dataclass(slots=True)
class Answer:
    """When pieces of text arrived (seconds on the monotonic clock), and the text."""

    began: float
    arrivals: list[float]
    text: str = ""

    @property
    def first_s(self) -> float:
        """Seconds from the request to its first text."""
        return self.arrivals[0] - self.began


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of several streams brought."""

    tokens_per_s: float
    decode_per_s: float
    first_p50_s: float
    first_p95_s: float
    texts: tuple[str, ...]


def run(server: Server, asks: Sequence[Ask]) -> Run:
    """All requests at once; RuntimeError if one was refused or brought another number of tokens."""
    return asyncio.run(_run(server, asks))


def first_token_s(server: Server, ask: Ask) -> float:
    """Seconds from the start of the process to the first text, asking until it answers."""
    return asyncio.run(_first_token(server, ask)) - server.began


async def _run(server: Server, asks: Sequence[Ask]) -> Run:
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(total=GIVE_UP_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        began = time.monotonic()
        answers = await asyncio.gather(*(_stream(session, server, ask) for ask in asks))
    return _summed(began, answers, sum(ask.new_tokens for ask in asks))


def _summed(began: float, answers: Sequence[Answer], tokens: int) -> Run:
    end = max(answer.arrivals[-1] for answer in answers)
    all_begun = max(answer.arrivals[0] for answer in answers)
    pieces = sum(at > all_begun for answer in answers for at in answer.arrivals)
    firsts = sorted(answer.first_s for answer in answers)
    return Run(
        tokens / (end - began), pieces / max(end - all_begun, 1e-9), statistics.median(firsts),
        firsts[min(int(0.95 * len(firsts)), len(firsts) - 1)], tuple(answer.text for answer in answers),
    )  # fmt: skip


async def _first_token(server: Server, ask: Ask) -> float:
    deadline = server.began + GIVE_UP_S
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline and server.process.poll() is None:
            try:
                return (await _stream(session, server, ask)).arrivals[0]
            except (aiohttp.ClientConnectorError, NotReadyError):
                await asyncio.sleep(LOOK_EVERY_S)
    raise RuntimeError(f"{server.name} did not answer; see its log in build/bench")


class NotReadyError(Exception):
    """503: it is still loading."""


async def _stream(session: aiohttp.ClientSession, server: Server, ask: Ask) -> Answer:
    answer, usage = Answer(time.monotonic(), []), dict[str, Any]()
    async with session.post(f"{server.url}/v1/completions", json=_body(server.dialect, ask)) as response:
        if response.status == 503:
            raise NotReadyError
        if response.status != 200:
            raise RuntimeError(f"{server.name}: {response.status} {await response.text()}")
        async for line in response.content:
            if line.startswith(b"data: {"):
                usage = _taken(answer, json.loads(line[6:])) or usage
    _check(server, ask, usage)
    return answer


def _taken(answer: Answer, chunk: dict[str, Any]) -> dict[str, Any]:
    """Note the chunk's text, if it has any; its usage, if it has that."""
    if "error" in chunk:
        raise RuntimeError(str(chunk["error"]))
    if any(choice.get("text") for choice in chunk["choices"]):
        answer.arrivals.append(time.monotonic())
        answer.text += chunk["choices"][0]["text"]
    return chunk.get("usage") or {}


def _check(server: Server, ask: Ask, usage: dict[str, Any]) -> None:
    found = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    if found != (ask.prompt_tokens, ask.new_tokens):
        raise RuntimeError(f"{server.name}: usage {usage}, wanted {ask.prompt_tokens}+{ask.new_tokens}")


def _body(dialect: str, ask: Ask) -> dict[str, Any]:
    body = {"prompt": ask.prompt, "max_tokens": ask.new_tokens, "stream": True}
    if dialect == "ours":
        sampling = {"temperature": 0.8, "top_p": 0.95} if ask.sampled else {"temperature": 0.0}
        return body | sampling | {"stream_options": {"include_usage": True}, "timeout": GIVE_UP_S}
    if dialect == "llama-server":
        # What the sidecar sends for the same request: its own samplers would be slower ones.
        return body | sampling_fields(Sampling(temperature=0.0), 0, ask.prompt_tokens + ask.new_tokens)
    # transformers freezes these from the first request of the process: never mix the two on one.
    config = SAMPLED if ask.sampled else {"do_sample": False}
    return body | {"generation_config": json.dumps(config | {"max_new_tokens": ask.new_tokens})}
