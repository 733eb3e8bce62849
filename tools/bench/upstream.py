"""A stand-in for llama-server that costs nothing: events at a fixed pace on every stream.

`python -m tools.bench.upstream --port N --every-s 0.001` answers the few routes that the sidecar asks, in the
forms of the real one. What is left of a measurement is what stands in front of it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from aiohttp import web

EVENTS = 2000
HELP = """\
-m, --model FNAME       model
--port PORT             port
-c, --ctx-size N        context
-np, --parallel N       slots
-t, --threads N         threads
"""
FRAME = (
    b'data: {"index":0,"content":" word","tokens":[5],"stop":false,"id_slot":-1,'
    b'"tokens_predicted":%d,"tokens_evaluated":3}\n\n'
)
LAST = b'data: {"content":"","stop":true,"stop_type":"limit","tokens_predicted":%d}\n\n'


def _completing(every_s: float) -> Any:
    async def complete(request: web.Request) -> web.StreamResponse:
        count = (await request.json()).get("n_predict", EVENTS)
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        for index in range(count):
            await answer.write(FRAME % (index + 1))
            await asyncio.sleep(every_s)
        await answer.write(LAST % count)
        return answer

    return complete


def _always(body: dict[str, Any]) -> Any:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body)

    return answer


def _flag(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def main() -> None:
    """Serve until killed; what a start asks of a program is answered as llama-server does."""
    for flag, text in (("--help", HELP), ("--version", "version: 0 (stand-in)"), ("--list-devices", "")):
        if flag in sys.argv:
            print(text)
            return
    app = web.Application()
    app.router.add_get("/health", _always({"status": "ok"}))
    app.router.add_get("/metrics", _always({}))
    app.router.add_get("/props", _always({"default_generation_settings": {"n_ctx": 4096}}))
    app.router.add_post("/tokenize", _always({"tokens": [1, 2, 3]}))
    app.router.add_post("/apply-template", _always({"prompt": "words"}))
    app.router.add_post("/completion", _completing(float(_flag("--every-s"))))
    port = int(_flag("--port"))
    web.run_app(app, host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    main()
