"""The least that can stand before a stream: bytes in, bytes out, nothing looked at.

`python -m tools.bench.relay --port N --upstream URL`, on the same HTTP server and client as the sidecar.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse


def app(upstream: str) -> FastAPI:
    """The application."""

    @asynccontextmanager
    async def session(made: FastAPI) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as opened:
            made.state.session = opened
            yield

    made = FastAPI(lifespan=session)

    @made.get("/readyz", response_model=None)
    async def ready() -> Response:
        return Response()

    @made.post("/v1/completions", response_model=None)
    async def relay(request: Request) -> Response:
        asked = await request.json()
        body = {"n_predict": asked["max_tokens"]}
        answer = await made.state.session.post(f"{upstream}/completion", json=body)
        return StreamingResponse(answer.content.iter_any(), media_type="text/event-stream")

    return made


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.relay", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    options = parser.parse_args()
    uvicorn.run(
        app(options.upstream), port=options.port, loop="uvloop", http="h11", log_config=None, access_log=False
    )


if __name__ == "__main__":
    main()
