"""A server of OpenAI's streamed chat that keeps a pace and does nothing else.

`python -m tools.bench.paced --port N --every-ms MS`: on each stream one token every so many milliseconds,
by a schedule that does not drift. One write for each event, made before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
NONE = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
MAX_TOKENS = re.compile(rb'"max_tokens":\s*(\d+)')
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def _chunk(text: str) -> bytes:
    data = f"data: {text}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(content: str) -> str:
    delta = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "paced",
            "choices": [delta],
        }
    )


EVENT, LAST = _chunk(_event(" word")), _chunk("[DONE]") + b"0\r\n\r\n"


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, every_s: float) -> None:
    loop = asyncio.get_running_loop()
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            if not (asked := MAX_TOKENS.search(body)):
                writer.write(NONE)
                continue
            writer.write(HEAD)
            began = loop.time()
            for index in range(int(asked[1])):
                await asyncio.sleep(began + (index + 1) * every_s - loop.time())
                writer.write(EVENT)
            writer.write(LAST)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _main(port: int, every_s: float) -> None:
    server = await asyncio.start_server(
        lambda reader, writer: _serve(reader, writer, every_s), "127.0.0.1", port, backlog=256
    )
    await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.paced", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--every-ms", type=float, required=True)
    options = parser.parse_args()
    uvloop.run(_main(options.port, options.every_ms / 1e3))


if __name__ == "__main__":
    main()
