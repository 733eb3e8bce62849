"""`llm-sidecar check URL`: whether any server of OpenAI's API would answer now, in one line.

`scripts/health_check.sh` says the same lines and exit codes with nothing but a shell and curl; tests
hold the two to each other.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp

# sysexits.h, as everywhere here.
READY, NOBODY, FAILED, NOT_NOW, NOT_OPENAI, NO_KEY = 0, 69, 70, 75, 76, 77
ADDRESS = "an address as http://127.0.0.1:8000"
DEADLINE_SECONDS = 10.0
LONGEST_ANSWER_BYTES = 4 * 1024 * 1024
MODELS = "/v1/models"
# LiteLLM's /health asks every model behind it a question, and pays for the answers.
HEALTH = ("/health/readiness", "/health")


@dataclass(frozen=True, slots=True)
class Said:
    """One answer. A status of 0 is none, and `why` says why."""

    status: int
    body: Any = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An exit code, and the line for people."""

    code: int
    text: str


def base_url(text: str) -> str | None:
    """The server's address, from its own or from that of its API (`.../v1`); None where it is none."""
    url = text.rstrip("/").removesuffix("/v1")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return url if usable and not parts.query and not parts.fragment else None


def check(url: str, api_key: str | None) -> Verdict:
    """Ask for its health, where it tells, and for its models. Takes 30 s at most."""
    verdict = asyncio.run(_checked(url, api_key))
    return Verdict(verdict.code, f"{url}: {verdict.text}")


def model_of(url: str, api_key: str | None) -> str | None:
    """The model that answers there; None where the server does not say."""
    return next(iter(models(asyncio.run(_asked(url, MODELS, api_key)).body) or []), None)


def models(body: Any) -> list[str] | None:
    """The ids in an answer of /v1/models, the active one first; None where it is no such answer."""
    rows = body.get("data") if isinstance(body, dict) else None
    if not isinstance(rows, list):
        return None
    known = [row for row in rows if isinstance(row, dict) and "id" in row]
    return [str(row["id"]) for row in sorted(known, key=lambda row: not row.get("active", False))]


async def _checked(url: str, api_key: str | None) -> Verdict:
    health = Said(0)
    for path in HEALTH:
        health = await _asked(url, path, api_key)
        if health.status in (0, 200, 503):
            break
    if refusal := of_health(health):
        return refusal
    return of_models(await _asked(url, MODELS, api_key), health, has_key=api_key is not None)


def of_health(said: Said) -> Verdict | None:
    """What the health alone tells; None where the models have to tell. Pure."""
    if said.status == 0:
        return Verdict(NOBODY, f"nobody answers: {said.why}; is it started, and is this its port?")
    if said.status != 503:
        return None
    body = said.body if isinstance(said.body, dict) else {}
    error = body.get("error") if isinstance(body.get("error"), dict) else {}
    why = body.get("reason") or body.get("message") or (error or {}).get("message") or "/health answers 503"
    if body.get("phase") == "failed":
        return Verdict(FAILED, f"its model could not be loaded: {why}")
    phase = f" (phase: {body['phase']})" if body.get("phase") else ""
    return Verdict(NOT_NOW, f"not ready: {why}{phase}")


def of_models(said: Said, health: Said, *, has_key: bool) -> Verdict:
    """What the list of models tells, of a server that is not unwell. Pure."""
    if said.status == 0:
        return Verdict(NOBODY, f"nobody answers: {said.why}; is it started, and is this its port?")
    if said.status in (401, 403):
        return Verdict(NO_KEY, "does not take this API_KEY" if has_key else "wants a key; set API_KEY")
    if said.status in (429, 502, 503, 504):
        return Verdict(NOT_NOW, f"not ready: {MODELS} answers {said.status}")
    ids = models(said.body) if said.status == 200 else None
    if ids is None:
        return Verdict(
            NOT_OPENAI,
            f"somebody answers, but not with OpenAI's API: {MODELS} is no list of models ({said.status})",
        )
    body = health.body if isinstance(health.body, dict) else {}
    model = body.get("model") or next(iter(ids), "no model")
    device = f" on {body['device']}" if body.get("device") else ""
    return Verdict(READY, f"ready, serves {model}{device}")


async def _asked(url: str, path: str, api_key: str | None) -> Said:
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    timeout = aiohttp.ClientTimeout(total=DEADLINE_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
            session.get(url + path, allow_redirects=False) as answer,
        ):
            said = await answer.content.read(LONGEST_ANSWER_BYTES)
            return Said(answer.status, _json(said))
    except TimeoutError:
        return Said(0, why=f"no answer within {DEADLINE_SECONDS:.0f} s")
    except aiohttp.ClientConnectorDNSError:
        return Said(0, why="there is no host of this name")
    except aiohttp.ClientConnectorError:
        return Said(0, why="connection refused")
    except (aiohttp.ClientError, OSError):
        return Said(0, why="the connection broke")


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
