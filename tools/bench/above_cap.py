"""An attempt above the cap of the card's memory: it is to cost that one request, and nobody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp

from tools.bench.checkpoint import prompt

OTHERS = 4
SHORT_TOKENS, ANSWER_TOKENS = 8, 512
GIVE_UP_S, RECOVERS_S = 120.0, 30.0
AGAIN_S = 1.0


async def attempt(
    url: str, context: int, lower: Callable[[], None], restore: Callable[[], None], others: int = OTHERS
) -> dict[str, Any]:
    """While others are answered the cap is lowered to what is held, and one long prompt comes.

    What became of it, how many of the others got their answer whole, and whether the same prompt is
    answered once the cap is back. `lower` and `restore` act on the worker.
    """
    timeout = aiohttp.ClientTimeout(total=GIVE_UP_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        begun = [asyncio.Event() for _ in range(others)]
        answers = [
            asyncio.create_task(_streamed(session, url, ANSWER_TOKENS, one, f"other {index}"))
            for index, one in enumerate(begun)
        ]
        await asyncio.gather(*(one.wait() for one in begun))
        lower()
        failed = await _whole(session, url, context, "above")
        served = await asyncio.gather(*answers)
        restore()
        return {
            "status": failed[0],
            "code": failed[1].get("error", {}).get("code"),
            "should_retry": failed[2],
            "message": failed[1].get("error", {}).get("message"),
            "others": others,
            "others_served": sum(served),
            "served_after": await _after(session, url, context),
        }


def costs_one(found: dict[str, Any]) -> bool:
    """Whether it was as it is promised."""
    return bool(
        found["status"] == 503
        and found["code"] == "out_of_memory"
        and found["others_served"] == found["others"]
        and found["served_after"]
    )


async def _streamed(
    session: aiohttp.ClientSession, url: str, max_tokens: int, begun: asyncio.Event, seed: str
) -> bool:
    """A short prompt with a long answer; `begun` is set with its first event, or its end."""
    body = {"prompt": prompt(SHORT_TOKENS, seed), "max_tokens": max_tokens, "stream": True}
    try:
        async with session.post(f"{url}/v1/completions", json=body) as answer:
            said = b""
            async for line in answer.content:
                begun.set()
                said = line.strip() or said
            return answer.status == 200 and said == b"data: [DONE]"
    finally:
        begun.set()


async def _whole(
    session: aiohttp.ClientSession, url: str, context: int, seed: str
) -> tuple[int, dict[str, Any], str | None]:
    """Nearly all of the context is prompt. Status, body, and whether a client should try again."""
    body = {"prompt": prompt(context - 2 * SHORT_TOKENS, seed), "max_tokens": SHORT_TOKENS}
    async with session.post(f"{url}/v1/completions", json=body) as answer:
        return answer.status, json.loads(await answer.read()), answer.headers.get("x-should-retry")


async def _after(session: aiohttp.ClientSession, url: str, context: int) -> bool:
    """Once memory has been measured again; until then the same shape may still be refused."""
    until = asyncio.get_running_loop().time() + RECOVERS_S
    while asyncio.get_running_loop().time() < until:
        if (await _whole(session, url, context, "after"))[0] == 200:
            return True
        await asyncio.sleep(AGAIN_S)
    return False
