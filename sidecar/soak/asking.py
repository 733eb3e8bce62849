"""What the sidecar is asked beside its load: is it ready, what are its sizes, how full is it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import aiohttp

from sidecar.errors import NothingToSoak
from sidecar.progress import Show
from sidecar.soak import figures
from sidecar.soak.figures import Load, Said
from sidecar.soak.server import Server

LOOK_SECONDS = 0.1
SILENT_SECONDS = 2.0
JSON = {"accept": "application/json"}
TOO_MANY_TOKENS = 2**31 - 1


class Asking:
    """Questions to one sidecar, over one session."""

    def __init__(self, session: aiohttp.ClientSession, server: Server) -> None:
        self._session = session
        self._server = server

    async def ready(self, show: Show) -> None:
        """Wait until it is. NothingToSoak when it ends before, gives up, or never answers."""
        loop = asyncio.get_running_loop()
        heard_at = loop.time()
        while True:
            self._server.check()
            try:
                status, body = await self._json("/readyz")
            except (aiohttp.ClientError, ValueError) as error:
                # One of our own is not up yet; another's address may simply be wrong.
                if self._server.ours is False and loop.time() - heard_at > SILENT_SECONDS:
                    raise NothingToSoak(f"{self._server.url} does not answer as a sidecar: {error}") from None
            else:
                heard_at = loop.time()
                if status == 200:
                    return
                await self._given_up(body)
                show(str(body.get("phase", "start")), body.get("progress"), "")
            await asyncio.sleep(LOOK_SECONDS)

    async def _given_up(self, body: dict[str, Any]) -> None:
        if body.get("phase") in ("failed", "unloaded", "draining"):
            _, health = await self._json("/health")
            why = health.get("reason") or health.get("message")
            raise NothingToSoak(f"the sidecar at {self._server.url} serves no model: {why}")

    async def sizes(self) -> Said:
        """What it says of its sizes; the context is asked for with a request that can not fit.

        NothingToSoak where not even that tells it.
        """
        _, health = await self._json("/health")
        said = figures.said(health, await self._text("/metrics"))
        if said.context is None:
            body = {"prompt": "?", "max_tokens": TOO_MANY_TOKENS}
            async with self._session.post(f"{self._server.url}/v1/completions", json=body) as answer:
                said = replace(said, context=figures.context_in(await answer.text()))
        if said.context is None:
            raise NothingToSoak(f"{self._server.url} does not say how long its context is")
        return said

    async def load(self) -> tuple[Load, float | None]:
        """How full it is, and what it holds by its own account, in MiB. Raises what aiohttp raises."""
        _, metrics = await self._json("/metrics")
        text = await self._text("/metrics")
        return figures.load(metrics, text), figures.used_mib(text)

    async def _json(self, path: str) -> tuple[int, dict[str, Any]]:
        async with self._session.get(self._server.url + path, headers=JSON) as answer:
            body = await answer.json()
            if not isinstance(body, dict):
                raise ValueError("its answer is no object")  # noqa: TRY004 - what was read, not a type of ours
            return answer.status, body

    async def _text(self, path: str) -> str:
        async with self._session.get(self._server.url + path) as answer:
            return await answer.text()
