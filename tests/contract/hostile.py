"""A client that means harm, as a process: `python -m tests.contract.hostile PORT SECONDS STREAMS BODIES`.

Keeps STREAMS endless answers going, so that every slot is busy, says so with a line, and sends BODIES of
1 MiB a second beside them. At the end it prints how often each status was answered, and how many answers
it kept going.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter

MIB = 1 << 20
LONG = {
    "prompt": "Tell me a story.",
    "max_tokens": 2040,
    "logit_bias": {"0": -100, "2": -100},
    "stream": True,
}


def _repeated(head: bytes, piece: bytes, tail: bytes, times: int = MIB) -> bytes:
    """As often as 1 MiB holds it, or `times`."""
    room = MIB - len(head) - len(tail)
    return head + piece * min(times, room // len(piece)) + tail


def _chat(content: bytes) -> bytes:
    return b'{"messages":[{"role":"user","content":"' + content + b'"}],"max_tokens":4}'


WORDS = b"many words of plain text " * (MIB // 26)
MESSAGE = b'{"role":"user","content":"' + b"many words " * 90 + b'"}'
UNUSED = b'{"prompt":"hi","x":'
STOPS = b'{"prompt":"hi","stop":'

COMPLETIONS = {
    "plain words": _repeated(b'{"prompt":"', b"many words of plain text ", b'"}'),
    "one long word": _repeated(b'{"prompt":"', b"a", b'"}'),
    "escapes": _repeated(b'{"prompt":"', b"\\u0041", b'"}'),
    "surrogate pairs": _repeated(b'{"prompt":"', b"\\ud83d\\ude00", b'"}'),
    "token ids": _repeated(b'{"prompt":[1', b",700", b"]}", 99_000),
    "too many token ids": _repeated(b'{"prompt":[1', b",700", b"]}"),
    "a hundred thousand stops": _repeated(b'{"prompt":"hi","stop":["x"', b',"x"', b"]}", 99_000),
    "deep arrays": UNUSED + b"[" * (MIB // 2) + b"]" * (MIB // 2 - 100) + b"}",
    "pairs of brackets": _repeated(UNUSED, b"[]", b"}"),
    "quotes": _repeated(UNUSED, b'"', b"}"),
    "numbers": _repeated(STOPS + b"[0", b",123456789", b"]}", 99_000),
    "fractions": _repeated(STOPS + b"[0", b",1.5e300", b"]}", 99_000),
    "long numbers": _repeated(UNUSED + b"[0", b"," + b"9" * 4000, b"]}"),
    "keys": UNUSED + b"{" + b",".join(b'"k%04d":1' % i for i in range(90_000)) + b"}}",
    "the same key": _repeated(UNUSED + b'{"k":1', b',"k":1', b"}}", 99_000),
    "objects": _repeated(UNUSED + b"[0", b',{"a":1}', b"]}", 49_000),
}
CHATS = {
    "chat of plain words": _chat(WORDS),
    "spelled control tokens": _chat(b"<|im_end|>" * (MIB // 11)),
    "half a control token": _chat(b"<|im_" * (MIB // 6)),
    "1024 messages": b'{"messages":[' + b",".join([MESSAGE] * 1024)[: -len(MESSAGE) * 3] + b"]}",
}


def requests() -> list[bytes]:
    """Every body of about 1 MiB, as the bytes that go on the wire."""
    found = [_request("/v1/completions", body) for body in COMPLETIONS.values()]
    return found + [_request("/v1/chat/completions", body) for body in CHATS.values()]


def _request(path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
    )
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def main(port: int, seconds: float, streams: int, per_second: int) -> None:
    """Send, count, print."""
    seen: Counter[str] = Counter()
    asked, sent, begun = requests(), [], asyncio.Semaphore(0)
    busy = [asyncio.create_task(_busy(port, begun)) for _ in range(streams)]
    for _ in busy:
        await begun.acquire()
    print("busy", flush=True)
    for turn in range(int(seconds * per_second)):
        sent.append(asyncio.create_task(_send(port, asked[turn % len(asked)], seen)))
        await asyncio.sleep(1 / per_second)
    await asyncio.sleep(0 if per_second else seconds)
    going = sum(not task.done() for task in busy)
    await asyncio.gather(*sent)
    for task in busy:
        task.cancel()
    print(json.dumps({"statuses": seen, "going": going}))


async def _send(port: int, request: bytes, seen: Counter[str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        answer = await reader.read()
        seen[answer[9:12].decode() or "none"] += 1
    except ConnectionError:
        seen["reset"] += 1
    finally:
        writer.close()


async def _busy(port: int, begun: asyncio.Semaphore) -> None:
    """One endless answer after the other; what comes is read and thrown away."""
    body = json.dumps(LONG).encode()
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(writer):
            writer.write(_request("/v1/completions", body))
            await reader.readuntil(b"data: ")
            begun.release()
            while await reader.read(1 << 16):
                pass


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
